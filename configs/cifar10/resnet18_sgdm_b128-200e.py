# SMD (Wan et al.), Fig. 4, SGDM: CIFAR-10, ResNet-18, four stages of the learning rate, 5 seeds.
# Their values were not readable, these are ours: .1, ÷10 at epochs 60, 120 and 160 of 200, batch
# 128, weight decay 5e-4. Its layer1.0.conv1 is network.stage1.0.first.conv in the records.
_base_ = ["../_base_/cifar10.py", "../_base_/cifar_resnet18.py"]

optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=5e-4))
param_scheduler = dict(type="MultiStepLR", by_epoch=True, milestones=[60, 120, 160], gamma=0.1)
train_cfg = dict(by_epoch=True, max_epochs=200, val_interval=1)
