# %% [markdown]
# A runner of the conformance vectors for an implementation that has nothing to do with this package.
#
# The protocol is on the page "Conformance vectors" of the documentation. Everything down to `run` is plain NumPy and
# would look the same in Julia or C++: read manifest.json, read one archive a case, solve, compare, print a line.

# %%
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

# %% [markdown]
# Their implementation: dense layers `z = sigma(W z + v)` only. Half steps towards T(z), an adjoint by dense algebra.

# %%
SIGMA = {  # name: (value, slope); the parameter of leaky_relu comes from the manifest
    "relu": (lambda p: np.maximum(p, 0), lambda p: 1.0 * (p > 0)),
    "leaky_relu": (lambda p, a: np.where(p > 0, p, a * p), lambda p, a: np.where(p > 0, 1.0, a)),
    "tanh": (np.tanh, lambda p: 1 - np.tanh(p) ** 2),
    "sigmoid": (lambda p: 1 / (1 + np.exp(-p)), lambda p: np.exp(-p) / (1 + np.exp(-p)) ** 2),
    "softplus": (lambda p: np.logaddexp(0, p), lambda p: 1 / (1 + np.exp(-p))),
    "arctan": (np.arctan, lambda p: 1 / (1 + p * p)),
    "hardtanh": (lambda p: np.clip(p, -1, 1), lambda p: 1.0 * (np.abs(p) < 1)),
}


def weight(case, p):
    if case["kind"] != "mon-dense":
        return p["W"] if case["kind"] == "fixed-point" else p["A"]
    A = p["A"] * np.sqrt(p["g"]) / np.linalg.norm(p["A"]) if "g" in p else p["A"]
    B = p["B"] * p["h"] / np.linalg.norm(p["B"]) if "h" in p else p["B"]
    return (1 - case["settings"]["m"]) * np.eye(len(A)) - A.T @ A + B - B.T


def solve(W, v, sigma):
    """Damped steps, then Newton's."""
    z = np.zeros_like(v)
    for _ in range(300):
        z = z + 0.1 * (sigma(z @ W.T + v)[0] - z)
    for _ in range(20):
        value, slope = sigma(z @ W.T + v)
        z = z + np.linalg.solve(np.eye(len(W)) - slope[:, :, None] * W, (value - z)[:, :, None])[:, :, 0]
    return z, sigma(z @ W.T + v)[1]


def answers(case, arrays):
    """State and gradients by x, U and b: what this implementation offers. None of what it cannot do."""
    name, parameters = case["activation"]["name"], case["activation"]["parameters"]
    if case["kind"] not in ("mon-dense", "fixed-point", "implicit") or name not in SIGMA:
        return None

    def sigma(p):
        return tuple(part(p, *parameters) for part in SIGMA[name])

    p = {key.removeprefix("parameter."): value for key, value in arrays.items() if key.startswith("parameter.")}
    x, dz, W = arrays["x"], arrays["dz"], weight(case, p)
    implicit = case["kind"] == "implicit"
    U = p.get("B" if implicit else "U")
    z, slope = solve(W, (x if U is None else x @ U.T) + p.get("b", 0), sigma)
    v = dz @ p["C"] if implicit else dz
    dpre = np.linalg.solve(np.eye(len(W)) - slope[:, :, None] * W.T, (slope * v)[:, :, None])[:, :, 0]
    found = {"state": z, "gradient.x": dpre if U is None else dpre @ U}
    if U is not None:
        found["gradient.B" if implicit else "gradient.U"] = dpre.T @ x
    if "b" in p:
        found["gradient.b"] = dpre.sum(axis=0)
    if case["kind"] != "mon-dense":
        found["gradient.A" if implicit else "gradient.W"] = dpre.T @ z
    if implicit:
        found["state"] = z @ p["C"].T + (x @ p["D"].T if "D" in p else 0)
        found["gradient.x"] += dz @ p["D"] if "D" in p else 0
        found |= {"gradient.C": dz.T @ z} | ({"gradient.D": dz.T @ x} if "D" in p else {})
    return found


# %% [markdown]
# The runner. A case is accepted where every block that the implementation offers is within its tolerance of the stored
# one. `null` where it cannot tell: a case that it does not support, or one whose fault may be in other blocks.


# %%
def judged(folder, case, implementation=answers):
    data = (folder / case["file"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == case["sha256"]
    with np.load(folder / case["file"], allow_pickle=False) as archive:
        arrays = dict(archive)
    found = implementation(case, arrays)
    if found is None:
        return None
    near = [np.linalg.norm(found[name] - arrays[name]) <= case["tolerance"][name] for name in found]
    whole = set(found) == set(case["tolerance"])
    return False if not all(near) else (True if whole or case["result"] == "valid" else None)


def run(folder, implementation=answers, write=lambda line: None):
    """Lines of the protocol; how many cases came out well, badly, or were not supported."""
    counts = {"well": 0, "badly": 0, "not supported": 0}
    for case in json.loads((folder / "manifest.json").read_text())["cases"]:
        accepts = judged(folder, case, implementation)
        write(json.dumps({"id": case["id"], "accepts": accepts}))
        right = {"valid": (True,), "acceptable": (True, False), "invalid": (False,)}[case["result"]]
        counts["not supported" if accepts is None else "well" if accepts in right else "badly"] += 1
    return counts


# %% [markdown]
# `python vector_runner.py DIR` prints the protocol. Without a folder the vectors are written into a temporary one, and
# the runner must see that the implementation is right, and that a broken one is not.


# %%
def transposed(case, arrays):
    found = answers(case, arrays)
    if found is None or case["kind"] != "fixed-point":
        return None
    swapped = answers(case, {**arrays, "parameter.W": arrays["parameter.W"].T})
    return {**found, "gradient.x": swapped["gradient.x"]}


if len(sys.argv) > 1 and Path(sys.argv[1]).is_dir():
    counts = run(Path(sys.argv[1]), write=print)
    print(counts, file=sys.stderr)
    sys.exit(1 if counts["badly"] else 0)

with tempfile.TemporaryDirectory() as name:
    folder = Path(name) / "vectors"
    subprocess.run([sys.executable, "-m", "implicitref", "vectors", "write", str(folder)], check=True)
    counts, broken = run(folder), run(folder, transposed)
print(f"their implementation: {counts}; broken on purpose: {broken}")

assert counts["well"] >= 60
assert counts["badly"] == 0
assert broken["badly"] >= 5
