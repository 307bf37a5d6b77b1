"""For optimizers that keep norms: detectors' predictors, whose norms have to grow, left out.

Nothing normalises what the last layers of mmdet's heads put out, so that the size of their outputs
is that of their weights; all but the masks' start at standard deviations of .01 or .001. Kept at
that norm they could only predict what is next to 0. They take the optimizer's ordinary step
instead, and everything else turns. Keys name weights alone, for a parameter that has a key of its
own escapes ``bias_decay_mult``.
"""

predictors = dict(
    faster_rcnn={
        "rpn_cls.weight": dict(rotational=False),
        "rpn_reg.weight": dict(rotational=False),
        "fc_cls.weight": dict(rotational=False),
        "fc_reg.weight": dict(rotational=False),
    },
    mask_rcnn={
        "rpn_cls.weight": dict(rotational=False),
        "rpn_reg.weight": dict(rotational=False),
        "fc_cls.weight": dict(rotational=False),
        "fc_reg.weight": dict(rotational=False),
        "conv_logits.weight": dict(rotational=False),
    },
    retinanet={
        "retina_cls.weight": dict(rotational=False),
        "retina_reg.weight": dict(rotational=False),
    },
)
