# %% [markdown]
# A trained network leaves for PyTorch and comes back: as a module with the same logits, as a state dict, as npz.

# %%
import importlib.util
import sys
import tempfile
from pathlib import Path

import numpy as np

import implicitref as ir

if importlib.util.find_spec("torch") is None:
    print("torch is not installed: there is nothing to export to")
    sys.exit()

import torch

network = ir.networks.mon_fc(np.random.default_rng(0), 64, hidden=20, dtype=np.float64)
x = np.random.default_rng(1).normal(size=(5, 64))
solution = network.solve(x, tol=1e-10)
logits = network.readout(solution.z)

# %% [markdown]
# The module: W by Proposition 1 from parameters that keep their names, one inverse, Peaceman-Rachford. For ReLU the
# reflected prox is |u|. Gradients go through one step from the equilibrium, as in Jacobian-free backpropagation.


# %%
class Mon(torch.nn.Module):
    def __init__(self, network: ir.networks.MonNetwork, alpha: float = 0.5, iterations: int = 300) -> None:
        super().__init__()
        for name, value in network.params.items():
            self.register_parameter(name, torch.nn.Parameter(torch.tensor(np.asarray(value))))
        self.m, self.alpha, self.iterations = network.W.m, alpha, iterations

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        eye = torch.eye(len(self.A), dtype=self.A.dtype)
        W = (1 - self.m) * eye - self.A.T @ self.A + self.B - self.B.T
        injection = x @ self.U.T + self.b
        with torch.no_grad():
            V = torch.linalg.inv(eye + self.alpha * (eye - W))
            u = torch.zeros_like(injection)
            for _ in range(self.iterations):
                reflected = u.abs()
                u = 2 * (reflected + self.alpha * injection) @ V.T - reflected
        z = torch.relu(torch.relu(u) @ W.T + injection)
        return z @ self.readout_weight.T + self.readout_bias


module = Mon(network)
exported = module(torch.tensor(x))
error = np.abs(exported.detach().numpy() - logits).max()
print(f"logits of the module and of the package differ by {error:.1e}; certified {solution.bound.max():.1e}")
assert error < 1e-8

# %% [markdown]
# The Jacobian-free gradient of the module is that of the package, hand-derived.

# %%
labels = np.array([1, 2, 3, 4, 5])
torch.nn.functional.cross_entropy(exported, torch.tensor(labels)).backward()
_, dlogits = ir.losses.cross_entropy(logits, labels)
dpre = ir.activations.relu.derivative(network.W.matvec(solution.z) + network.inject(x)) * (
    dlogits @ network.readout_weight
)
assert np.abs(module.U.grad.numpy() - dpre.T @ x).max() < 1e-8

# %% [markdown]
# And back: by a state dict of PyTorch, under any names, and by an npz archive.

# %%
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "mon.pt"
    torch.save({f"mon.{name}": value for name, value in module.state_dict().items()}, path)
    arrays = ir.persistence.read_arrays(path)
    fresh = ir.networks.mon_fc(np.random.default_rng(9), 64, hidden=20, dtype=np.float64)
    returned = ir.persistence.with_arrays(fresh, arrays, {name: f"mon.{name}" for name in fresh.params})
    np.savez(Path(folder) / "mon.npz", **network.params)
    again = ir.persistence.with_arrays(fresh, ir.persistence.read_arrays(Path(folder) / "mon.npz"))
for other in (returned, again):
    assert all(np.array_equal(other.params[name], value) for name, value in network.params.items())
print("the parameters came back bit for bit, by PyTorch and by npz")
