"""What the detection configs add to mmdet's own: readied mmcv ops, the hook, a stated seed."""

custom_imports = dict(imports=["smd_hooks", "benchmarks.pipelines.detection"])
custom_hooks = [dict(type="SMDHook", interval=50)]
randomness = dict(seed=0)
