# What every language model's run shares: imports, loaders of token files, what decays, what is
# measured, logged and saved.
_base_ = ["./classification_runtime.py"]

custom_imports = dict(
    imports=[
        "smd_hooks",
        "benchmarks.pipelines.language",
    ],
    allow_failed_imports=False,
)
train_dataloader = dict(
    sampler=dict(type="InfiniteSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    dataset=dict(type="TokenFileDataset", split="train"),
)
val_dataloader = dict(
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
    dataset=dict(type="TokenFileDataset", split="val"),
)
optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0))
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=500, max_keep_ckpts=1),
)
# gradient noise is seen between ranks, or between micro-batches of gradient accumulation
custom_hooks = [
    dict(
        type="SMDHook",
        interval=10,
        representation=dict(layers=["blocks.*"], interval=20),
        noise=dict(layers=["blocks.*"], interval=20),
    )
]
val_evaluator = dict(_delete_=True, type="TokenLoss")
