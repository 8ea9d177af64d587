# %% [markdown]
# A layer of TorchDEQ 0.1.0, checked: solved tightly it passes; its default tolerances, its default gradient, a small
# loss and a second derivative are judged for what they are.

# %%
import importlib.util
import sys

missing = [name for name in ("torch", "torchdeq") if importlib.util.find_spec(name) is None]
if missing:
    print(f"skipped: this example needs {' and '.join(missing)} (pip install torchdeq==0.1.0)")
    sys.exit()

import numpy as np
import torch
import torchdeq

import implicitref as ir
from implicitref.crosscheck import check, from_torch

torch.set_num_threads(1)
rng = np.random.default_rng(0)
n, d = 6, 3
W = rng.normal(size=(n, n))
W *= 0.7 / np.linalg.norm(W, 2)
PARAMETERS = {"W": W, "U": rng.normal(size=(n, d)), "b": rng.normal(size=n)}


# %% [markdown]
# `z = tanh(W z + U x + b)`, solved by TorchDEQ. With `wrong` the backward pass sees another map than the forward pass.


# %%
class Layer(torch.nn.Module):
    def __init__(self, wrong=False, **options):
        super().__init__()
        for name, value in PARAMETERS.items():
            setattr(self, name, torch.nn.Parameter(torch.tensor(value)))
        self.deq, self.wrong = torchdeq.get_deq(**options), wrong

    def step(self, z, x):
        W = self.W.detach() if self.wrong else self.W
        return torch.tanh(z @ W.T + x @ self.U.T + self.b)

    def forward(self, x):
        states, _ = self.deq(lambda z: self.step(z, x), torch.zeros(len(x), n, dtype=x.dtype))
        return states[-1]


def report(wrong=False, tol=None, second=False, **options):
    target = from_torch(
        Layer(wrong, **options),
        kind="fixed-point",
        names={name: name for name in PARAMETERS},
        activation=ir.activations.tanh,
        tol=tol,
        second=second,
    )
    return check(target)


TIGHT = {"ift": True, "f_tol": 1e-12, "f_max_iter": 500, "b_tol": 1e-13, "b_max_iter": 500, "b_stop_mode": "rel"}

tight = report(**TIGHT)
print(tight)
assert tight.verdict == "pass"

# %% [markdown]
# Broken on purpose: the weight is detached in the step.

# %%
broken = report(wrong=True, **TIGHT)
print(broken.diagnosis[0].says)
assert broken.verdict == "fail"
assert broken.diagnosis[0].name == "detached"

# %% [markdown]
# Default tolerances (f_tol = 1e-3, absolute). In float64 the state is not solved to what float64 layers promise, and
# the gradient is right as far as that can tell: inconclusive, no accusation. Without `ift=True` the gradient is that of
# one step, Jacobian-free backpropagation: an approximation, and said to be one.

# %%
default, phantom = report(ift=True), report()
print(default.reason, phantom.reason, sep="\n")
assert default.verdict == "inconclusive"
assert all(block.verdict == "right" for block in default.blocks)
assert phantom.verdict == "inconclusive"
assert phantom.diagnosis[0].name == "jfb"

# %% [markdown]
# Declared for what it promises, 1e-3, the same layer fails for another reason: its backward tolerance, b_tol = 1e-6, is
# absolute, so the gradient of a loss times 1e-6 is not 1e-6 times the gradient.

# %%
declared = report(tol=1e-3, ift=True)
print(declared.reason)
assert declared.diagnosis[0].name == "absolute-tolerance"

# %% [markdown]
# The second derivative is silently wrong, however tightly everything is solved.

# %%
second = report(second=True, **TIGHT)
print(second.reason)
assert second.verdict == "fail"
assert second.diagnosis[0].name == "second-derivative"
