# %% [markdown]
# A fixed-point layer of jaxopt 0.8.5, checked: solved tightly in both passes it passes, second derivative included; by
# default its adjoint stops at 1e-6, and that is said.

# %%
import importlib.util
import sys
import warnings

missing = [name for name in ("jax", "jaxopt") if importlib.util.find_spec(name) is None]
if missing:
    print(f"skipped: this example needs {' and '.join(missing)} (pip install jaxopt==0.8.5)")
    sys.exit()
warnings.filterwarnings("ignore", message="JAXopt is no longer maintained")

import functools

import jax
import jax.numpy as jnp
import jaxopt
import numpy as np

import implicitref as ir
from implicitref.crosscheck import check, from_jax

jax.config.update("jax_enable_x64", True)
rng = np.random.default_rng(0)
n, d = 6, 3
W = rng.normal(size=(n, n))
W *= 0.7 / np.linalg.norm(W, 2)
PARAMETERS = {"W": W, "U": rng.normal(size=(n, d)), "b": rng.normal(size=n)}

# %% [markdown]
# `z = tanh(W z + U x + b)`. jaxopt differentiates it by the implicit function theorem, with a linear solver that is an
# argument.


# %%
def step(z, p, x):
    return jnp.tanh(z @ p["W"].T + x @ p["U"].T + p["b"])


def layer(solver=None, **options):
    def function(p, x):
        found = jaxopt.FixedPointIteration(fixed_point_fun=step, implicit_diff_solve=solver, **options)
        return found.run(jnp.zeros((len(x), n), x.dtype), p, x).params

    return jax.jit(function)


def report(function, **options):
    return check(from_jax(function, PARAMETERS, kind="fixed-point", activation=ir.activations.tanh, **options))


def forgotten(matvec, b, **_):
    # somebody's own linear solver, for (K - I)' w = b: it takes K for zero
    return -b


exact = functools.partial(jaxopt.linear_solve.solve_gmres, tol=1e-13)
tight = report(layer(exact, tol=1e-13, maxiter=1000), second=True)
print(tight)
assert tight.verdict == "pass"

# %% [markdown]
# Broken on purpose: a linear solver that takes the Jacobian K for zero is Jacobian-free backpropagation, without saying
# so; and half a gradient is half a gradient.

# %%
silent = report(layer(forgotten, tol=1e-13, maxiter=1000))
print(silent.diagnosis[0].says)
assert silent.verdict == "inconclusive"
assert silent.diagnosis[0].name == "jfb"

half = report(layer(lambda matvec, b, **_: 0.5 * exact(matvec, b), tol=1e-13, maxiter=1000))
print(half.diagnosis[0].says)
assert half.verdict == "fail"
assert half.diagnosis[0].name == "factor-half"

# %% [markdown]
# The default: the state is solved to 1e-5, the adjoint by conjugate gradients on the normal equations to 1e-6.
# Neither is what a float64 layer promises, neither is called wrong; declared as 1e-5 the layer passes.

# %%
default, adjoint = report(layer()), report(layer(tol=1e-13, maxiter=1000))
print(default.reason, adjoint.reason, sep="\n")
assert default.verdict == "inconclusive"
assert adjoint.verdict == "inconclusive"
assert adjoint.diagnosis[0].name == "adjoint-not-solved"
assert report(layer(), tol=1e-5).verdict == "pass"
