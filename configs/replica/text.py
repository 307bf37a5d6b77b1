# What language's embedded replicas train and on what: a GPT of two layers on the characters of a
# novel, two micro-batches a step. Weights begin as large, in proportion to the vectors that they
# meet, as those of the 124M model: what turns keeps its norm for good. (Those at the ends of two
# layers' branches begin 2.4 times as large as those at the ends of twelve layers': √12/√2.)
_base_ = ["../_base_/language_runtime.py"]

model = dict(type="GPT", vocab_size=75, block_size=32, layers=2, heads=4, width=64, init_std=0.07)
train_dataloader = dict(
    batch_size=8, num_workers=0, dataset=dict(data_root="data/demo/text", block_size=32)
)
val_dataloader = dict(
    batch_size=64,
    num_workers=0,
    dataset=dict(data_root="data/demo/text", block_size=32, windows=1024),
)
