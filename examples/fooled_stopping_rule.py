# %% [markdown]
# The published stopping rule, ||z+ - z||/||z+|| <= eps, accepts states that solve nothing.

# %%
import numpy as np

import implicitref as ir

# relu, n = 2: I - W is a rotation and a stretch. z* = (1, 0), but the first iterates are z = 0, 0, 0, then 0.1946, ...
W = ir.operators.MonotoneDense(np.zeros((2, 2)), np.array([[0.0, 2.0], [0.0, 0.0]]), m=1.0)
injection = np.array([[1.0, -1.0]])
print("I - W =", (np.eye(2) - W.to_dense()).tolist())

# %%
fooled = ir.mon.equilibrium(W, injection, ir.activations.relu, alpha=4.0, tol=1e-8, stop="relative-change")
print("relative change:", fooled.z, fooled.reason, "| certified distance", fooled.bound)
assert np.all(fooled.z == 0)
assert fooled.bound[0] >= 1

# %% [markdown]
# The default stops on a bound of the distance itself, computed from the state.

# %%
solved = ir.mon.equilibrium(W, injection, ir.activations.relu, alpha=4.0, tol=1e-8)
print("certificate:", solved.z, solved.reason)
assert np.max(np.abs(solved.z - [[1.0, 0.0]])) <= solved.bound[0] <= 1e-8
