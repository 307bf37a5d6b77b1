# Analyzing & Reducing the Need for Learning Rate Warmup in GPT Training (Kosson et al. 2024; figure
# number not read): GPT-2 under AdamW, the recipe that the others' optimizers are put into.
_base_ = ["../_base_/gpt2.py"]
