# %% [markdown]
# A first equilibrium with a certificate, and its gradient.

# %%
import numpy as np

import implicitref as ir

rng = np.random.default_rng(0)
n, batch = 20, 4
A, B = rng.normal(size=(2, n, n)) / np.sqrt(n)
injection = rng.normal(size=(batch, n))  # U x + b

# %% [markdown]
# Proposition 1: `W = (1 - m) I - A'A + B - B'` makes `I - W >= m I`, so that
# z* = relu(W z* + injection) exists and is unique.

# %%
W = ir.operators.MonotoneDense(A, B, m=0.5)
solution = ir.mon.equilibrium(W, injection, ir.activations.relu, tol=1e-10)
z = solution.z
print(solution.reason)

assert np.all(solution.bound <= 1e-10)
assert np.max(np.abs(z - np.maximum(W.matvec(z) + injection, 0))) < 1e-9

# %% [markdown]
# The same equilibrium by three other splittings. Plain iteration has no guarantee here: ||W||_2 > 1.

# %%
for method in ("forward-backward", "douglas-rachford"):
    other = ir.mon.equilibrium(W, injection, ir.activations.relu, method=method, tol=1e-10, max_iter=20_000)
    print(f"{method}: {other.iterations} iterations")
    assert np.max(np.abs(other.z - z)) < 2e-10

# %% [markdown]
# Theorem 3: the gradient at the pre-activation solves a linear inclusion with the same resolvent, transposed.
# Half the sum of squares has gradient z at z; compare one entry of the gradient by A with a central difference.

# %%
grads, backward = ir.mon.equilibrium_vjp(W, injection, ir.activations.relu, z, z, tol=1e-10)


def loss(A: np.ndarray) -> float:
    found = ir.mon.equilibrium(W.replace(A=A), injection, ir.activations.relu, tol=1e-11)
    return 0.5 * float(np.sum(found.z**2))


h, entry = 1e-6, np.zeros((n, n))
entry[3, 5] = h
central = (loss(A + entry) - loss(A - entry)) / (2 * h)
print(f"dA[3, 5]: by hand {grads['A'][3, 5]:.9f}, central difference {central:.9f}")

assert abs(grads["A"][3, 5] - central) < 1e-6 * np.max(np.abs(grads["A"]))
