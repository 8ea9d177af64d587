"""What layers refuse: the message names the argument, the requirement and the value."""

from __future__ import annotations

import re

import numpy as np
import pytest

import implicitref as ir
from implicitref import layers as L
from implicitref.activations import relu

X = np.ones((2, 3, 5, 6))
K = np.ones((4, 3, 3, 3))
BN = L.BatchNorm(np.zeros(3), np.ones(3))
ONE, TWO = np.ones(1), np.ones(2)

REFUSED = {
    "channels": (lambda: L.conv2d(X, np.ones((4, 2, 3, 3))), ir.ShapeError,
                 "weight must have shape (out, 3, kh, kw) for x with 3 channels (there are no groups); got (4, 2, 3"),
    "kernel above the padded image": (lambda: L.conv2d(X, np.ones((4, 3, 6, 3))), ir.ShapeError,
                                      "kernel must not be larger than the padded image 5 x 6; got (6, 3)"),
    "the same with padding": (lambda: L.conv2d(X, np.ones((4, 3, 8, 3)), padding=1), ir.ShapeError,
                              "padded image 7 x 8; got (8, 3)"),
    "stride 0": (lambda: L.conv2d(X, K, stride=0), ir.HypothesisError,
                 "stride must be an integer >= 1, or two of them; got 0"),
    "stride 1.5": (lambda: L.Conv2d(K, stride=1.5), ir.HypothesisError, "stride must be an integer >= 1"),
    "three strides": (lambda: L.Conv2d(K, stride=(1, 1, 1)), ir.HypothesisError, "got (1, 1, 1)"),
    "padding": (lambda: L.Conv2d(K, padding=-1), ir.HypothesisError, "padding must be an integer >= 0"),
    "mode": (lambda: L.Conv2d(K, padding_mode="reflect"), ir.HypothesisError,
             "padding_mode must be one of zeros, circular; got 'reflect'"),
    "circular padding": (lambda: L.conv2d(X, K, padding=6, padding_mode="circular"), ir.HypothesisError,
                         "padding must not exceed the image 5 x 6 if circular; got 6"),
    "groups": (lambda: L.Conv2d(K, groups=3), TypeError, "groups"),
    "bias": (lambda: L.Conv2d(K, np.ones(3)), ir.ShapeError, "bias must have shape (4,); got (3,)"),
    "bias of the function": (lambda: L.conv2d(X, K, np.ones(3)), ir.ShapeError, "bias must have shape (4,)"),
    "no batch axis": (lambda: L.conv2d(X[0], K), ir.ShapeError, "Add the batch axis: x[None]."),
    "weight not finite": (lambda: L.Conv2d(np.full((1, 1, 1, 1), np.nan)), ir.HypothesisError, "weight must be finite"),
    "weight a list": (lambda: L.conv2d(X, [[1.0]]), TypeError, "weight must be an array; got list"),
    "affine rows": (lambda: L.Affine(np.ones((2, 3)), np.ones(3)), ir.ShapeError, "bias must have shape (2,)"),
    "affine columns": (lambda: L.Affine(np.ones((2, 3)))(np.ones((1, 4))), ir.ShapeError, "x, U, b must have shapes"),
    "one value a channel": (lambda: BN(np.ones((1, 3)), training=True), ir.HypothesisError,
                            "x must hold at least 2 values a channel in training mode; got 1, shape (1, 3)"),
    "one pixel": (lambda: BN(np.ones((1, 3, 1, 1)), training=True), ir.HypothesisError, "at least 2 values a channel"),
    "channels of batch norm": (lambda: BN(np.ones((2, 4, 5, 5))), ir.ShapeError, "(batch, 3, h, w); got (2, 4"),
    "the same in training": (lambda: BN(np.ones((2, 4, 5, 5)), training=True), ir.ShapeError,
                             "x must have shape (batch, 3) or (batch, 3, h, w); got (2, 4, 5, 5)"),
    "moments": (lambda: L.batch_norm(X, ONE, ONE), ir.ShapeError, "mean must have shape (3,); got (1,)"),
    "axes of batch norm": (lambda: BN(np.ones((2, 3, 5))), ir.ShapeError, "x must have shape (batch, 3) or"),
    "half an affine": (lambda: L.BatchNorm(TWO, TWO, TWO), ir.HypothesisError, "both or neither; bias is None"),
    "variance": (lambda: L.BatchNorm(ONE, -ONE), ir.HypothesisError, "running_var must be >= 0; its smallest entry is"),
    "eps": (lambda: L.BatchNorm(ONE, ONE, eps=0.0), ir.HypothesisError, "eps must be a number > 0; got 0.0"),
    "momentum": (lambda: L.BatchNorm(ONE, ONE, momentum=2), ir.HypothesisError, "momentum must lie in [0, 1]; got 2"),
    "running_var": (lambda: L.BatchNorm(ONE, TWO), ir.ShapeError, "running_var must have shape (1,); got (2,)"),
    "pool kernel": (lambda: L.max_pool(X, 6), ir.ShapeError, "kernel must not be larger than the image 5 x 6; got"),
    "pool kernel 0": (lambda: L.MaxPool(0), ir.HypothesisError, "kernel must be an integer >= 1"),
    "pool stride": (lambda: L.AveragePool(2, 0), ir.HypothesisError, "stride must be an integer >= 1"),
    "vectors to pool": (lambda: L.GlobalAveragePool()(np.ones((2, 3))), ir.ShapeError, "x must have shape (batch,"),
    "rate": (lambda: L.Dropout(1.0), ir.HypothesisError, "rate must lie in [0, 1); got 1.0"),
    "rate of the function": (lambda: L.dropout(X, X, -0.1), ir.HypothesisError, "rate must lie in [0, 1); got -0.1"),
    "no mask": (lambda: L.Dropout(0.5)(X, training=True), ir.HypothesisError, "mask must be given in training mode"),
    "mask": (lambda: L.Dropout(0.5, X)(X[:1], training=True), ir.ShapeError, "mask must have shape (1, 3, 5, 6)"),
    "activation": (lambda: L.Activate(np.tanh), ir.HypothesisError, "activation must be one of implicitref.activ"),
    "factor": (lambda: L.Scale(np.inf), ir.HypothesisError, "factor must be a finite number; got inf"),
    "branches": (lambda: L.residual(L.Conv2d(K))(X), ir.ShapeError, "layers must give one shape, to be added; got"),
    "no branch": (lambda: L.Sum({}), ir.HypothesisError, "layers must hold at least one layer"),
    "a list of layers": (lambda: L.Sequential([BN]), TypeError, "layers must map names to layers"),
    "no layer": (lambda: L.Sequential({"act": relu}), TypeError, "layers must hold layers of implicitref.layers;"),
    "one name twice": (lambda: L.Sequential({"a": L.Sequential({"b": BN}), "a.b": BN}), ir.HypothesisError,
                       "a name of its own; a.b.bias, a.b.running_mean, a.b.running_var, a.b.weight occurs twice"),
    "shrinking block": (lambda: L.basic_block(L.Conv2d(np.ones((2, 3, 3, 3))), BN, L.Conv2d(np.ones((2, 2, 3, 3))), BN),
                        ir.HypothesisError, "conv2 must have at least the 3 channels of x; got 1 less"),
    "an unknown name": (lambda: BN.replace(gamma=ONE), TypeError,
                        "this BatchNorm has no array gamma; it has weight, bias, running_mean, running_var"),
    "none at all": (lambda: L.MaxPool(2).replace(weight=ONE), TypeError, "this MaxPool has no array weight; it has"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_argument_the_requirement_and_the_value(case):
    call, error, message = REFUSED[case]
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_arrays_of_two_libraries_are_refused():
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(TypeError, match="bias must come from the library of the first array"):
        L.Conv2d(K, strict.ones(4))
