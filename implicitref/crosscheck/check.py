"""`check`: one layer, judged in order: the forward pass, kinks, every block of the gradient, why, invariances."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..arrays import norm
from ..errors import HypothesisError, ShapeError
from . import judge, probes
from .descent import approximation
from .equations import Layer, Solved
from .probes import Complaint, Finding, Observation, Probe
from .report import Report
from .targets import Target
from .transfer import host, is_single

__all__ = ["CrosscheckError", "assert_correct", "check"]

BATCH, DRAWS = 3, 8
CLEAR = 1e-2  # a pre-activation nearer to a kink is drawn again, if there is another draw
UNFINISHED = ("forward-stopped", "forward-not-solved")
IMPRECISE = 1e-3  # an unexplained error below this is called imprecise, not wrong


class CrosscheckError(AssertionError):
    """A layer did not pass; `.report` says why.

    Attributes
    ----------
    report : Report
    """

    def __init__(self, report: Report) -> None:
        super().__init__(report.to_text())
        self.report = report


def check(target: Target, *, x: Any = None, dz: Any = None, random_state: int = 0) -> Report:
    r"""Is the forward pass right, is every block of the gradient right, and if not, which line is wrong?

    Parameters
    ----------
    target : Target
        From `from_callable`, `from_torch` or `from_jax`.
    x : array (batch, ...), optional
        Inputs; drawn, away from kinks, unless given.
    dz : array (batch, ...), optional
        Gradient of the loss at the output; drawn unless given.
    random_state : int

    Returns
    -------
    Report
        "pass": forward and every block that was given are right, and the invariances hold. "fail": something is
        wrong; the diagnosis names it, or says "unknown". "inconclusive": the forward pass, or the adjoint, is not
        solved tightly enough to tell, or the gradient is a legitimate approximation.

    Raises
    ------
    TypeError, ShapeError, HypothesisError
        About the arguments; what the target does wrong is reported, never raised.

    Examples
    --------
    >>> import numpy as np
    >>> from implicitref.crosscheck import from_callable
    >>> def backward(x, dz):                                       # of z = W z + x: the transpose is forgotten
    ...     w = np.linalg.solve(np.eye(2) - W, dz.T).T
    ...     return {"W": w.T @ forward(x), "x": w}
    >>> W = np.array([[0.1, 0.6], [-0.3, 0.2]])
    >>> def forward(x):
    ...     return np.linalg.solve(np.eye(2) - W, x.T).T
    >>> from implicitref.activations import leaky_relu
    >>> report = check(from_callable(forward, backward, {"W": W}, kind="fixed-point", activation=leaky_relu(1.0)))
    >>> report.verdict, report.diagnosis[0].name
    ('fail', 'adjoint-not-transposed')
    """
    if not isinstance(target, Target):
        raise TypeError(f"target must be made by from_callable, from_torch or from_jax; got {type(target).__name__}.")
    begun = time.perf_counter()
    try:
        report = _judged(target, _case(target, x, dz, np.random.default_rng(random_state)))
    except Complaint as complaint:
        report = _failed(target, complaint.finding)
    return dataclasses.replace(report, seconds=time.perf_counter() - begun)


def assert_correct(target: Target, *, x: Any = None, dz: Any = None, random_state: int = 0) -> Report:
    """`check`, raising CrosscheckError (an AssertionError) unless the verdict is "pass"."""
    report = check(target, x=x, dz=dz, random_state=random_state)
    if not report.passed:
        raise CrosscheckError(report)
    return report


# ------------------------------------------------------------------------------------------------
# The problem


class Case(NamedTuple):
    """An equation, inputs, the equilibrium, a cotangent at the output, shapes of the blocks."""

    equation: Any
    x: np.ndarray
    solved: Solved
    dy: np.ndarray
    shapes: Mapping[str, tuple[int, ...]]


def _case(target: Target, x: Any, dz: Any, rng: np.random.Generator) -> Case:
    equation = target.equation()
    x, solved = _inputs(equation, target, rng) if x is None else _given(equation, _wide("x", x, target))
    shape = equation.output(solved.z, x).shape
    dy = rng.normal(size=shape) if dz is None else _wide("dz", dz, target)
    dy = target.rounded(dy)
    if dy.shape != shape:
        raise ShapeError(f"dz must have the shape of the output, {shape}; got {dy.shape}.")
    shapes = {name: value.shape for name, value in equation.params.items()}
    return Case(equation, x, solved, dy, {**shapes, "x": x.shape})


def _wide(name: str, value: Any, target: Target) -> np.ndarray:
    found = host(value)
    if not np.issubdtype(found.dtype, np.floating) or not np.all(np.isfinite(found)):
        raise HypothesisError(f"{name} must be real, floating and finite; got dtype {found.dtype}.")
    return target.rounded(found.astype(np.float64))


def _given(equation: Any, x: np.ndarray) -> tuple[np.ndarray, Solved]:
    wanted = equation.input_shape
    if wanted is not None and x.shape[1:] != tuple(wanted):
        raise ShapeError(f"x must have shape (batch, {', '.join(map(str, wanted))}); got {x.shape}.")
    return x, _solve(equation, x)


def _solve(equation: Any, x: np.ndarray) -> Solved:
    # T is code of the target: what it raises, here and in the gradient, is a finding
    if isinstance(equation, Layer):
        return equation.solve(x)

    def tried() -> Solved:
        solved: Solved = equation.solve(x)
        point = equation.point(solved.z, x, solved.z)
        point.blocks(point.dpre)
        return solved

    found: Solved = probes.call("T", tried)
    return found


def _inputs(equation: Any, target: Target, rng: np.random.Generator) -> tuple[np.ndarray, Solved]:
    # the draw whose pre-activations are farthest from kinks, relative to their size
    if equation.input_shape is None:
        raise HypothesisError("x must be given: nothing else says what shape the inputs of this target have.")
    best: tuple[float, Any] = (-1.0, None)
    for _ in range(DRAWS):
        x = target.rounded(rng.normal(size=(BATCH, *equation.input_shape)))
        solved = _solve(equation, x)
        margin = _margin(equation, x, solved)
        best = max(best, (margin, (x, solved)), key=lambda pair: pair[0])
        if margin > CLEAR:
            break
    found: tuple[np.ndarray, Solved] = best[1]
    return found


def _margin(equation: Any, x: np.ndarray, solved: Solved) -> float:
    # how far every pre-activation can move before its slope jumps, as a share of their size, halved until it cannot
    if not isinstance(equation, Layer):
        return math.inf
    point = equation.point(solved.z, x, equation.output(solved.z, x))
    size, slope = float(np.sqrt(np.mean(point.pre**2))), equation.activation.derivative
    for margin in (2 * CLEAR, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5, 1e-6):
        sides = [slope(point.pre + side * margin * size) for side in (-1, 1)]
        if np.max(np.abs(sides[0] - sides[1])) < 0.1:
            return margin
    return 0.0


# ------------------------------------------------------------------------------------------------
# The verdict


def _failed(target: Target, *findings: Finding, **known: Any) -> Report:
    first = findings[0]
    return Report(target.name, target.kind, "fail", f"{first.name}: {first.says}.", diagnosis=findings, **known)


def _judged(target: Target, case: Case) -> Report:
    seen = probes.observe(target, case.shapes, case.x, case.dy)
    unit = _unit(target, seen)
    _repeatable(target, case, seen, unit)
    case = _nearest(case, seen.y)
    state = judge.judge_state(case.equation, case.x, seen.y, case.solved, target.tol, unit)
    if state.verdict == "cannot tell":
        return _inconclusive(Report(target.name, target.kind, "", "", state), _REFERENCE)
    wrong = _forward(target, case, seen, state)
    if wrong == (_SEVERAL,):
        return _inconclusive(Report(target.name, target.kind, "", "", state), _SEVERAL)
    if wrong and wrong[0].name not in UNFINISHED:
        return _failed(target, *wrong, state=state)
    return _gradient(target, case, seen, state, unit, wrong)


def _inconclusive(report: Report, finding: Finding) -> Report:
    return dataclasses.replace(
        report, verdict="inconclusive", reason=f"{_capital(finding.says)}.", diagnosis=(finding,)
    )


def _nearest(case: Case, y: np.ndarray) -> Case:
    # where nothing proves that there is one equilibrium only, the layer may have found another
    if case.solved.certified or case.equation.hidden:
        return case
    other = case.equation.solve(case.x, y)
    distances = [float(np.max(norm(y - solved.z))) for solved in (case.solved, other)]
    closer = np.all(np.isfinite(other.bound)) and not distances[0] <= distances[1]
    return case._replace(solved=other) if closer else case


def _unit(target: Target, seen: Observation) -> float:
    return float(max(target.unit, np.finfo(target.dtype).eps, np.finfo(seen.dtype).eps))


def _repeatable(target: Target, case: Case, seen: Observation, unit: float) -> None:
    again = probes.observe(target, case.shapes, case.x, case.dy)
    size = max(float(np.linalg.norm(seen.y)), 1e-300)
    if float(np.linalg.norm(again.y - seen.y)) > max(1e-4, 4 * unit) * size:
        raise Complaint(
            Finding(
                "random",
                "two calls return two states",
                "Switch to evaluation mode: dropout, noise, random starts and starts from the last state off.",
            )
        )


def _forward(target: Target, case: Case, seen: Observation, state: judge.State) -> tuple[Finding, ...]:
    if state.verdict == "solved":
        return ()
    found = judge.explain_forward(case.equation, case.x, seen.y, case.solved, state.allowed)
    if found:
        return (_named(found, "forward"),)
    if state.verdict == "loose":  # alone it may be solved to another accuracy: that is no dependence on the batch
        return (_not_solved(state),)
    if _depends_on_batch(target, case, seen, state):
        return (_BATCH,)
    if case.equation.hidden and not case.solved.certified:
        return (_SEVERAL,)
    return (
        Finding(
            "unknown",
            f"the output is no equilibrium of the equation, {state.distance:.1e} off",
            "Compare it with the equation term by term.",
            "MON-Eq2",
            stage="forward",
        ),
    )


def _not_solved(state: judge.State) -> Finding:
    return Finding(
        "forward-not-solved",
        f"the forward pass is {state.distance:.1e} from the equilibrium, where {state.allowed:.1e} is what it promises",
        "Tighten its tolerance or raise its number of steps, and check again; or declare what it promises by tol.",
        "NEW-stopping-fooled",
        stage="forward",
    )


_BATCH = Finding(
    "depends-on-the-batch",
    "a sample has another answer alone than in a batch",
    "Evaluate batch normalisation by stored moments; stop solvers by every sample's own residual.",
    stage="invariance",
)


def _depends_on_batch(target: Target, case: Case, seen: Observation, state: judge.State) -> bool:
    alone = probes.observe(target, {**case.shapes, "x": case.x[:1].shape}, case.x[:1], case.dy[:1])
    size = max(float(np.linalg.norm(seen.y[:1])), 1e-300)
    return float(np.linalg.norm(alone.y - seen.y[:1])) > max(0.1 * state.distance, 10 * state.allowed) * size


def _named(found: list[judge.Explanation], stage: str) -> Finding:
    first, *others = found
    mistake = first.mistake
    return Finding(
        mistake.name,
        mistake.says,
        mistake.remedy,
        mistake.source,
        first.detail,
        stage,
        tuple(other.mistake.name for other in others),
        getattr(mistake, "legitimate", False),
    )


def _gradient(
    target: Target, case: Case, seen: Observation, state: judge.State, unit: float, forward: tuple[Finding, ...]
) -> Report:
    base, blocks = _compared(target, case, seen, state, unit)
    report = Report(
        target.name, target.kind, "pass", "Forward and gradient are right.", state, tuple(blocks), kinks=base.kinks
    )
    wrong = [block for block in blocks if block.verdict == "wrong"]
    if wrong:
        return _wrong_gradient(target, case, seen, base, report, wrong, forward)
    if forward:
        reason = "The forward pass is not solved; the gradient is right as far as that can tell."
        return dataclasses.replace(report, verdict="inconclusive", reason=reason, diagnosis=forward)

    if any(block.verdict == "cannot tell" for block in blocks):
        return _inconclusive(report, _KINK if base.kinks else _REFERENCE)
    slope = functools.partial(_true_slope, case)
    found = probes.invariances(target, case.shapes, case.x, case.dy, seen, state.allowed, base.tolerance, slope)
    report = dataclasses.replace(report, probes=tuple(found))
    broken = [_invariance(probe) for probe in found if not probe.holds]
    if broken:
        verdict = "fail" if any(_severe(probe, base) for probe in found) else "inconclusive"
        return dataclasses.replace(
            report, verdict=verdict, reason=f"{_capital(broken[0].says)}.", diagnosis=tuple(broken)
        )
    if target.rule != "implicit":
        return _approximating(base, seen, report, int(target.rule.partition(":")[2] or 0) + 1)
    return report


def _true_slope(case: Case, x: np.ndarray) -> np.ndarray:
    # the gradient by x at other inputs
    point = case.equation.point(case.equation.solve(x).z, x, case.dy)
    return np.asarray(point.blocks(point.dpre)["x"])


def _compared(
    target: Target, case: Case, seen: Observation, state: judge.State, unit: float
) -> tuple[judge.Ground, list[judge.Block]]:
    # at the state that the target returned, where that is one, and at the equilibrium: it may have used either
    own = not case.equation.hidden
    amplified = judge.amplification(case.equation, case.solved, case.x)
    loose = state.verdict != "solved"
    size = norm(case.solved.z)
    distance = norm(seen.y - case.solved.z) if own else state.distance * np.maximum(size, np.sqrt(np.mean(size**2)))
    promise = max(target.tol, 30 * state.distance if loose else 0.0)
    tried = []
    apart = own and float(np.max(distance)) > 1e-3 * target.tol * float(np.max(size))
    for z in [seen.y, case.solved.z] if apart else [case.solved.z]:
        base = judge.ground(
            case.equation, case.x, case.dy, z, distance + case.solved.bound, amplified, promise, unit, target.rule
        )
        tried.append((base, judge.compared(base, seen.grads)))
    return min(tried, key=lambda pair: max((b.error / b.tolerance for b in pair[1] if b.tolerance > 0), default=0.0))


def _wrong_gradient(
    target: Target,
    case: Case,
    seen: Observation,
    base: judge.Ground,
    report: Report,
    wrong: list[judge.Block],
    forward: tuple[Finding, ...],
) -> Report:
    found, names = judge.explain(base, seen.grads), ", ".join(block.name for block in wrong)
    if found:
        named = _named(found, "gradient")
        if named.legitimate:
            report = _approximating(base, seen, report, _powers(named))
        verdict = "inconclusive" if named.legitimate else "fail"
        return dataclasses.replace(
            report, verdict=verdict, reason=f"{_capital(named.says)}.", diagnosis=(named, *forward)
        )
    if _single_inside(target, seen) and max(block.error for block in wrong) < IMPRECISE:
        return dataclasses.replace(
            report, verdict="fail", reason=f"{_capital(_SINGLE.says)}.", diagnosis=(_SINGLE, *forward)
        )
    if forward:
        reason = "The forward pass is not solved, so that the gradient cannot be judged; it is off in " + names + "."
        return dataclasses.replace(report, verdict="inconclusive", reason=reason, diagnosis=forward)
    if max(block.error for block in wrong) < IMPRECISE:
        return _inconclusive(report, _imprecise(wrong))
    batch = [_BATCH] if _gradient_depends_on_batch(target, case, seen, base) else []
    unknown = Finding(
        "unknown", f"wrong in {names}; no mistake of the library explains it", _looks(wrong), stage="gradient"
    )
    findings = (*batch, unknown)
    return dataclasses.replace(report, verdict="fail", reason=f"The gradient is {unknown.says}.", diagnosis=findings)


def _single_inside(target: Target, seen: Observation) -> bool:
    # float32 where float64 is meant
    numbers = np.concatenate([block.ravel() for block in seen.grads.values()])
    return target.dtype == np.float64 and is_single(numbers)


def _gradient_depends_on_batch(target: Target, case: Case, seen: Observation, base: judge.Ground) -> bool:
    if "x" not in seen.grads:
        return False
    alone = probes.observe(target, {**case.shapes, "x": case.x[:1].shape}, case.x[:1], case.dy[:1])
    return float(np.linalg.norm(alone.grads["x"] - seen.grads["x"][:1])) > 10 * base.tolerance["x"]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


_KINK = Finding(
    "not-differentiable-here",
    "pre-activations lie at kinks, where any slope of an interval is right: the gradient is one of many",
    "Check at other inputs; leave x out and they are drawn away from kinks.",
    "MON-Thm2",
    stage="gradient",
)

_REFERENCE = Finding(
    "reference-not-known-well",
    "the reference itself, or the precision of the layer, allows errors as large as these",
    "Check in float64, with inputs or parameters for which the layer is better conditioned.",
    stage="gradient",
)

_SEVERAL = Finding(
    "equilibrium-not-unique",
    "the output is that of no equilibrium that was found, but nothing proves that there is only one",
    "Check with ||A||_inf < 1 or, if the state can be returned, without C and D, as a layer of kind fixed-point.",
    "GREEDY-Thm1",
    stage="forward",
)

_SINGLE = Finding(
    "float32-inside",
    "every number of the gradient is a float32 number, and its error is that of float32",
    "Compute and accumulate in float64, or hand float32 parameters to the check.",
    stage="gradient",
)


def _imprecise(wrong: list[judge.Block]) -> Finding:
    worst = max(wrong, key=lambda block: block.error)
    return Finding(
        "adjoint-not-solved",
        f"the gradient is right to {worst.error:.1e} only (block {worst.name}); it promises {worst.tolerance:.1e}",
        "Tighten the tolerance of the adjoint solve and check again; or declare what it promises by tol.",
        "MON-Alg4",
        stage="gradient",
    )


def _looks(wrong: list[judge.Block]) -> str:
    alike = [b for b in wrong if b.cosine > 1 - 1e-6]
    if alike:
        return "; ".join(f"{b.name} is {b.factor:.6g} times what it should be" for b in alike) + "."
    return "Compare block by block: " + ", ".join(f"{b.name} cosine {b.cosine:.3f}" for b in wrong) + "."


def _severe(probe: Probe, base: judge.Ground) -> bool:
    # a loss scaled by 1e-6 may meet a sensible absolute tolerance: that is wrong only where the gradient is
    if probe.holds or "loss" not in probe.name:
        return not probe.holds
    return probe.difference * min(base.tolerance[n] / base.size[n] for n in base.size if base.size[n]) > IMPRECISE


def _invariance(probe: Probe) -> Finding:
    if "loss" in probe.name:
        says = f"the gradient of a loss scaled by a factor is not scaled by it ({probe.name})"
        return Finding(
            "absolute-tolerance",
            says,
            "Make the adjoint's tolerance relative to ||dz||.",
            "JFB-Tab2",
            stage="invariance",
        )
    if "repeated" in probe.name:
        return Finding("random", "two calls return two answers", "Switch randomness off.", stage="invariance")
    if "second" in probe.name:
        says = f"the second derivative by x is off by {probe.difference:.1e}"
        remedy = "Differentiate the adjoint solve too, or refuse a double backward pass: a silent wrong one is worse."
        return Finding("second-derivative", says, remedy, "MON-Thm2", stage="second derivative")
    return _BATCH._replace(detail=probe.name)


def _approximating(base: judge.Ground, seen: Observation, report: Report, powers: int | None) -> Report:
    return dataclasses.replace(report, approximation=approximation(base.point, seen.grads, powers))


def _powers(named: Finding) -> int | None:
    # k + 1 of a series of k powers of K', K the Jacobian of the map itself; None of a splitting's step
    if named.name == "neumann":
        return int(named.detail.rpartition(" ")[2]) + 1
    return 1 if named.name == "jfb" and "step" not in named.detail else None
