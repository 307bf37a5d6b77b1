# Trained by tests, on the demo's text; data_root comes from the command line. SGD, since AdamW
# would blow up the gradients of the keys' biases, which are nothing but rounding.
custom_imports = dict(imports=["smd_hooks", "benchmarks.pipelines.language"])
default_scope = "mmengine"
model = dict(type="GPT", vocab_size=75, block_size=16, layers=2, heads=2, width=16)
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    dataset=dict(type="TokenFileDataset", split="train", block_size=16),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
    dataset=dict(type="TokenFileDataset", split="val", block_size=16, windows=11),
)
val_evaluator = dict(type="TokenLoss")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=0.01),
    clip_grad=dict(max_norm=1.0),
)
train_cfg = dict(by_epoch=False, max_iters=12, val_interval=12)
val_cfg = dict()
log_processor = dict(by_epoch=False, mean_pattern=r"^(?!val/).*(loss|time|grad_norm)")
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=1, log_metric_by_epoch=False),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=12),
)
custom_hooks = [dict(type="SMDHook", interval=1)]
randomness = dict(seed=0)
