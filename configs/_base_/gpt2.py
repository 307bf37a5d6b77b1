# GPT-2 of 124 M parameters on OpenWebText as Kosson et al., "Analyzing & Reducing the Need for
# Learning Rate Warmup in GPT Training" (2024), train it: 480 sequences of 1,024 tokens a step (here
# 8 GPUs × 60), 5,000 steps, a linear warmup, a constant rate, and over the last half a line to 0.
# The shape is GPT-2's own; that no dropout is used, that matrices and embeddings decay and nothing
# else does, and how much is validated are ours. Data is prepared by
#   python -m benchmarks prepare openwebtext -o data/openwebtext
# It trains in bfloat16 and compiled, which takes a GPU; elsewhere add
#   --cfg-options optim_wrapper.type=OptimWrapper compile=False
_base_ = ["./language_runtime.py"]

model = dict(type="GPT", vocab_size=50257, block_size=1024, layers=12, heads=12, width=768)
train_dataloader = dict(
    batch_size=60,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    dataset=dict(data_root="data/openwebtext", block_size=1024),
)
val_dataloader = dict(
    batch_size=60,
    num_workers=2,
    persistent_workers=True,
    pin_memory=True,
    dataset=dict(data_root="data/openwebtext", block_size=1024, windows=2400),
)
optim_wrapper = dict(
    type="BFloat16OptimWrapper",
    optimizer=dict(type="AdamW", lr=6e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1),
)
param_scheduler = [
    dict(type="WarmupShareLR", share=0.05, total=5000, by_epoch=False),
    dict(type="LinearLR", start_factor=1.0, end_factor=0.0, begin=2500, end=5001, by_epoch=False),
]
train_cfg = dict(by_epoch=False, max_iters=5000, val_interval=500)
auto_scale_lr = dict(base_batch_size=480)
compile = True
