# %% [markdown]
# A monotone operator layer written in PyTorch: checked, then broken on purpose in five places, each found by name.

# %%
import importlib.util
import sys

if importlib.util.find_spec("torch") is None:
    print("skipped: this example needs PyTorch (pip install torch)")
    sys.exit()

import torch

import implicitref as ir
from implicitref.crosscheck import check, from_torch

torch.manual_seed(0)
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)

# %% [markdown]
# The layer: `z = relu(W z + U x + b)` with `W = (1 - m) I - A'A + B - B'`, solved by Peaceman-Rachford. One more step
# with gradients makes autograd see the parameters; a hook replaces the incoming gradient v by `(I - W' J)^-1 v`.
# `broken` says which line is wrong.


# %%
class MON(torch.nn.Module):
    def __init__(self, d=4, n=8, m=0.5, broken=""):
        super().__init__()
        self.A, self.B = (torch.nn.Parameter(torch.randn(n, n) / n**0.5) for _ in range(2))
        self.inject = torch.nn.Linear(d, n)
        self.m, self.broken = m, broken

    def weight(self):
        gram = self.A @ self.A.T if self.broken == "A A'" else self.A.T @ self.A
        skew = self.B - self.B.T
        if self.broken == "detached":
            skew = skew.detach()
        return (1 - self.m) * torch.eye(len(gram)) - gram + skew

    def solve(self, W, injection):
        eye = torch.eye(len(W))
        V = torch.linalg.inv(2 * eye - W)  # (I + alpha (I - W))^-1 at alpha = 1
        u = torch.zeros_like(injection)
        for _ in range(20 if self.broken == "stopped" else 2000):
            half = 2 * torch.relu(u) - u
            u = 2 * (half + injection) @ V.T - half
        return torch.relu(u)

    def forward(self, x):
        W, injection = self.weight(), self.inject(x)
        with torch.no_grad():
            z = self.solve(W, injection)
        pre = z @ W.T + injection
        if not pre.requires_grad:
            return torch.relu(pre)
        out, J, eye = torch.relu(pre), (pre > 0).to(pre), torch.eye(len(W))
        K = J[:, :, None] * W.detach()
        if self.broken != "transpose":
            K = K.mT

        def adjoint(v):
            if self.broken == "jfb":
                return v
            return torch.linalg.solve(eye - K, v[:, :, None])[:, :, 0]

        out.register_hook(adjoint)
        return out


NAMES = {"A": "A", "B": "B", "U": "inject.weight", "b": "inject.bias"}


def report(broken=""):
    layer = MON(broken=broken)
    return check(from_torch(layer, kind="mon-dense", m=layer.m, names=NAMES, activation=ir.activations.relu))


# %% [markdown]
# The right layer passes: the state to the certified equilibrium, every block of the gradient apart, all invariances.

# %%
right = report()
print(right)

assert right.verdict == "pass"
assert {block.name for block in right.blocks} == {"A", "B", "U", "b", "x"}
assert all(block.verdict == "right" for block in right.blocks)

# %% [markdown]
# Every broken one is named, with the line of the paper that it belongs to.

# %%
EXPECTED = {
    "transpose": ("fail", "adjoint-not-transposed"),
    "detached": ("fail", "detached"),
    "A A'": ("fail", "gram-of-rows-forward"),
    "stopped": ("inconclusive", "forward-not-solved"),
    "jfb": ("inconclusive", "jfb"),
}
for broken, (verdict, name) in EXPECTED.items():
    found = report(broken)
    print(f"{broken}: {found.verdict}, {found.diagnosis[0].name}: {found.diagnosis[0].remedy}")
    assert found.verdict == verdict
    assert found.diagnosis[0].name == name

# %% [markdown]
# Jacobian-free backpropagation is legitimate: the report says how far it is from the gradient, and declared it passes.

# %%
layer = MON(broken="jfb")
target = from_torch(layer, kind="mon-dense", m=layer.m, names=NAMES, activation=ir.activations.relu, rule="jfb")
declared = check(target)
print(f"{declared.approximation.angle:.0f} degrees from the gradient")

assert declared.passed
assert declared.approximation.descends
