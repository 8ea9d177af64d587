r"""The implicit model of GREEDY section I: ``yhat = C z + D x``, ``z = phi(A z + B x)``, and its gradients.

=================  =======================  =================================
GREEDY             here
=================  =======================  =================================
u, columns of U    rows of x                (batch, d)
x, columns of X    rows of z                (batch, n)
Q (section II)     rows of dpre             gradient at A z + B x
=================  =======================  =================================
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .. import mon, well_posed
from ..activations import Activation, relu
from ..arrays import Array, alongside, checked, largest, like, namespace, positive, quiet, to_numpy
from ..errors import HypothesisError, ShapeError
from ..losses import loss_named
from ..operators import MonotoneDense
from ..splitting import Solution as SplittingSolution
from .tables import _counts

__all__ = ["ImplicitGradients", "ImplicitModel", "implicit_model"]

Solution = well_posed.Solution | SplittingSolution


class ImplicitGradients(NamedTuple):
    """A loss, its gradient by the names of `ImplicitModel.params`, and the two solves that gave them."""

    loss: float
    grads: dict[str, Array]
    prediction: Array
    forward: Solution
    backward: Solution


@dataclasses.dataclass(frozen=True, eq=False)
class ImplicitModel:
    r"""``yhat = C z + D x``, ``z = phi(A z + B x)`` for every row x [GREEDY-Eq2, GREEDY-Eq3].

    Parameters
    ----------
    A : array (n, n)
    B : array (n, d)
    C : array (q, n)
    D : array (q, d), optional
        None stands for 0 and is not trained [GREEDY-Asm2].
    activation : Activation
        A CONE map [GREEDY-Asm1].
    radius : float, > 0
        Training keeps A in the ball ``||A||_inf <= radius``, see `projected`. Other uses do not look at it.

    Raises
    ------
    TypeError, ShapeError, HypothesisError

    Examples
    --------
    >>> import numpy as np
    >>> one = np.array([[1.0]])
    >>> model = ImplicitModel(one / 2, one, 3 * one)            # z = relu(z/2 + x) = 2 x for x > 0
    >>> model.predict(np.array([[1.0], [-1.0]]), tol=1e-12).round(9)
    array([[6.],
           [0.]])
    """

    A: Array
    B: Array
    C: Array
    D: Array | None = None
    activation: Activation = relu
    radius: float = 0.95

    def __post_init__(self) -> None:
        A, B, C = (checked(name, getattr(self, name), 2) for name in "ABC")
        (n, d), q = B.shape, C.shape[0]
        for name, shape in {"A": (n, n), "B": (n, d), "C": (q, n), **({} if self.D is None else {"D": (q, d)})}.items():
            value = alongside(name, checked(name, getattr(self, name), 2), A)
            if tuple(value.shape) != shape or not n:
                raise ShapeError(
                    f"A, B, C, D must have shapes (n, n), (n, d), (q, n), (q, d), n >= 1; with B {tuple(B.shape)} and "
                    f"C {tuple(C.shape)} {name} must have shape {shape}; got {tuple(value.shape)}."
                )
            object.__setattr__(self, name, value)
        if not well_posed.is_cone(self.activation):
            raise HypothesisError(
                f"activation must be one of implicitref.activations, CONE maps [GREEDY-Asm1]; got {self.activation!r}."
            )
        object.__setattr__(self, "radius", positive("radius", self.radius, " [GREEDY-SecII-relaxation]"))

    @property
    def params(self) -> dict[str, Array]:
        """The trained arrays by name: A, B, C, and D where there is one."""
        named = {name: getattr(self, name) for name in "ABCD"}
        return {name: value for name, value in named.items() if value is not None}

    def replace(self, **params: Array) -> ImplicitModel:
        """The same model with other parameters."""
        unknown = sorted(set(params) - set(self.params))
        if unknown:
            raise TypeError(f"this model has no parameter {', '.join(unknown)}; it has {', '.join(self.params)}.")
        return dataclasses.replace(self, **params)

    def projected(self, params: Mapping[str, Array]) -> dict[str, Array]:
        """The nearest parameters with ``||A||_inf <= radius`` [GREEDY-SecII-relaxation, GREEDY-Rem4]."""
        return {**params, "A": well_posed.project(params["A"], self.radius)}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, (d,)."""
        return (int(self.B.shape[1]),)

    def inject(self, x: Array) -> Array:
        """B x: inputs (batch, d) to states (batch, n)."""
        x = self._inputs(x)
        return x @ like(x, self.B).T

    def readout(self, z: Array, x: Array) -> Array:
        """C z + D x: (batch, q)."""
        yhat = z @ like(z, self.C).T
        return yhat if self.D is None else yhat + x @ like(z, self.D).T

    def solve(
        self,
        x: Array,
        *,
        method: str = "picard",
        tol: float = 1e-6,
        max_iter: int = 1000,
        start: Array | None = None,
    ) -> Solution:
        r"""The state of every input.

        Parameters
        ----------
        x : array (batch, d)
        method : {"picard", "peaceman-rachford", "forward-backward", "douglas-rachford"}
            Picard's iteration needs perron(A) < 1 and certifies every entry [GREEDY-Thm1]. The splittings need the
            symmetric part of I - A positive definite and certify the Euclidean distance [MON-Thm1]; neither
            hypothesis implies the other.
        tol : float, > 0
            Of that certificate.
        max_iter : int, >= 1
        start : array (batch, n), optional

        Raises
        ------
        TypeError, ShapeError, HypothesisError, ConvergenceError

        Examples
        --------
        >>> import numpy as np
        >>> one = np.array([[1.0]])
        >>> model = ImplicitModel(-2 * one, one, one)            # Picard's iteration cycles: 1, 0, 1, 0
        >>> model.solve(one, method="peaceman-rachford").z.round(6)
        array([[0.333333]])
        """
        return self._state(self.inject(x), method, tol=tol, max_iter=max_iter, start=start)

    def _state(self, injection: Array, method: str, **options: Any) -> Solution:
        if method == "picard":
            return well_posed.solve(like(injection, self.A), injection, self.activation, **options)
        return mon.equilibrium(self._monotone(), injection, self.activation, method=method, **options)

    def predict(self, x: Array, **options: Any) -> Array:
        """C z + D x with z solved by `solve`, whose keywords these are: (batch, d) to (batch, q)."""
        x = self._inputs(x)
        return self.readout(self.solve(x, **options).z, x)

    def gradients(
        self,
        x: Array,
        target: Any,
        loss: str | Callable[[Array, Any], tuple[float, Array]] = "squared",
        *,
        method: str = "picard",
        tol: float = 1e-6,
        max_iter: int = 1000,
        start: Array | None = None,
        inputs: bool = False,
    ) -> ImplicitGradients:
        r"""The loss and its gradient, through the solve of one more fixed-point equation [GREEDY-Eq4].

        Parameters
        ----------
        x : array (batch, d)
        target : array (batch, q) for "squared", integer labels (batch,) for "cross-entropy"
        loss : {"squared", "cross-entropy"} or function (prediction, target) -> (value, gradient at the prediction)
            The two are means over the batch, see `losses`; a function takes whatever target it likes.
        method, tol, max_iter, start
            As in `solve`; the adjoint equation is solved to tol times its largest right hand side.
        inputs : bool
            Also give ``grads["x"]``, like x.

        Examples
        --------
        >>> import numpy as np
        >>> one = np.array([[1.0]])
        >>> found = ImplicitModel(one / 2, one, one).gradients(one, 0 * one, tol=1e-12)
        >>> float(found.grads["A"][0, 0].round(9))               # loss = 1/(1 - A)^2/2
        8.0
        """
        # pre = A z + B x and z = phi(pre) give dz = J (A dz + dA z + dB x). With g = C' dy the gradient at z, and
        # dpre = J (g + A' dpre), <g, dz> = <dpre, dA z + dB x>: pair the first equation with (I - A' J)^-1 g.
        x = self._inputs(x)
        model = dataclasses.replace(self, **{name: like(x, p) for name, p in self.params.items()})
        injection = model.inject(x)
        forward = model._state(injection, method, tol=tol, max_iter=max_iter, start=start)
        z = forward.z
        prediction = model.readout(z, x)
        value, dy = (loss if callable(loss) else loss_named(loss))(prediction, target)
        with quiet():  # the adjoint refuses what overflows
            dz = dy @ model.C
        backward = model.adjoint(z, injection, dz, method=method, tol=tol, max_iter=max_iter)
        dpre, xp = backward.z, namespace(x)
        dpre_t, dy_t = xp.matrix_transpose(dpre), xp.matrix_transpose(dy)
        grads = {"A": dpre_t @ z, "B": dpre_t @ x, "C": dy_t @ z, "D": dy_t @ x}
        grads = {name: grads[name] for name in model.params}
        if inputs:
            grads["x"] = dpre @ model.B if model.D is None else dpre @ model.B + dy @ model.D
        return ImplicitGradients(value, grads, prediction, forward, backward)

    def adjoint(
        self, z: Array, injection: Array, dz: Array, *, method: str = "picard", tol: float = 1e-6, max_iter: int = 1000
    ) -> Solution:
        r"""``dpre = J (dz + A' dpre)``, the gradient at the pre-activation ``A z + injection`` [GREEDY-Eq4].

        Parameters
        ----------
        z, injection, dz : array (batch, n)
            The state, B x, and the gradient at the state.
        method, tol, max_iter
            As in `solve`; tol is relative to the largest ``|dz_i|``.
        """
        A = like(z, self.A)
        options: dict[str, Any] = {"tol": tol * largest(namespace(dz).abs(dz)) or tol, "max_iter": max_iter}
        if method == "picard":
            jac = self.activation.derivative(z @ A.T + injection)
            return well_posed.solve(A.T, dz, well_posed.Slopes(jac), **options)
        return mon.equilibrium_vjp(self._monotone(), injection, self.activation, z, dz, method=method, **options)[1]

    def _monotone(self) -> MonotoneDense:
        A = to_numpy(self.A).astype(np.float64)
        m = float(np.linalg.eigvalsh(np.eye(len(A)) - (A + A.T) / 2)[0])
        if not m > 0:
            raise HypothesisError(
                "a splitting needs the symmetric part of I - A to be positive definite [MON-Thm1]; its smallest "
                f"eigenvalue is {m:.6g}. Use method='picard', which needs perron(A) < 1: it is "
                f"{well_posed.perron(self.A):.6g}."
            )
        return MonotoneDense.from_weight(self.A, m)

    def _inputs(self, x: Any) -> Array:
        x = checked("x", x, 2)
        if tuple(x.shape[1:]) != self.input_shape:
            raise ShapeError(f"x must have shape (batch, {self.B.shape[1]}); got {tuple(x.shape)}.")
        return x


def implicit_model(
    rng: np.random.Generator,
    order: int,
    inputs: int,
    outputs: int,
    *,
    activation: Activation = relu,
    radius: float = 0.95,
    feedthrough: bool = False,
    dtype: Any = np.float64,
) -> ImplicitModel:
    r"""A random model: A uniform in +-radius/n, so that ``||A||_inf <= radius``; B, C, D in +-1/sqrt(their columns).

    n (n + p + q) parameters without D, which the paper counts [GREEDY-Asm2].

    Examples
    --------
    >>> import numpy as np
    >>> model = implicit_model(np.random.default_rng(0), order=30, inputs=1, outputs=1)
    >>> sum(p.size for p in model.params.values()), well_posed.norm_inf(model.A) <= 0.95
    (960, True)
    """
    _counts(order=order, inputs=inputs, outputs=outputs)

    def uniform(rows: int, columns: int, limit: float) -> np.ndarray:
        return rng.uniform(-limit, limit, size=(rows, columns)).astype(dtype)

    A = uniform(order, order, radius / order)
    B, C = uniform(order, inputs, inputs**-0.5), uniform(outputs, order, order**-0.5)
    D = uniform(outputs, inputs, inputs**-0.5) if feedthrough else None
    return ImplicitModel(A, B, C, D, activation, radius)
