# What every classification run shares: what to import, what to log and when to save.
custom_imports = dict(
    imports=["smd_hooks", "benchmarks.pipelines.classification"], allow_failed_imports=False
)
default_scope = "mmengine"
default_hooks = dict(
    runtime_info=dict(type="RuntimeInfoHook"),
    timer=dict(type="IterTimerHook"),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    logger=dict(type="LoggerHook", interval=50),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", interval=1, max_keep_ckpts=3),
)
custom_hooks = [dict(type="SMDHook", interval=50)]
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)
randomness = dict(seed=0)
log_level = "INFO"
# MMEngine logs the mean of the last ten of whatever has "loss" in its name; a validation's is one
# number, already a mean, and would be averaged with those of the nine validations before it.
log_processor = dict(mean_pattern=r"^(?!val/).*(loss|time|grad_norm)")
load_from = None
resume = False
val_evaluator = dict(type="TopKAccuracy", topk=(1, 5))
val_cfg = dict()
