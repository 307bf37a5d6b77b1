# Warmup in GPT training (Kosson et al. 2024; figure number not read), §6: LionAR with angles that
# are smaller while gradients agree, so that representations change by as much per step early as
# late. The formula is ours. The noise is seen between the ranks.
_base_ = ["./gpt2-124m_lionar_8xb60-5k.py"]

custom_hooks = [*_base_.custom_hooks, dict(type="SNRCorrectionHook", interval=10)]
