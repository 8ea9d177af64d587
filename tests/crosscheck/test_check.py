"""The order of judgement on one small layer: what passes, what is named, what is inconclusive, who misbehaves."""

from __future__ import annotations

import json

import numpy as np
import pytest
import small_layers as layers

import implicitref as ir
from implicitref import crosscheck
from implicitref.crosscheck import check, locate, systems

IDENTITY = ir.activations.leaky_relu(1.0)


def named(report):
    return (report.diagnosis[0].name, *report.diagnosis[0].also)


def test_a_right_layer_passes():
    report = check(layers.target())
    assert report.verdict == "pass"
    assert report.diagnosis == ()
    assert {block.name for block in report.blocks} == {"W", "U", "b", "x"}
    assert all(probe.holds for probe in report.probes)
    assert report.state.certified
    assert report.state.distance < 1e-14


def test_float32_passes_by_its_own_tolerance():
    params = {name: value.astype(np.float32) for name, value in layers.PARAMS.items()}

    def forward(x):
        return layers.state(x, np.float32)

    def backward(x, dz):
        return {name: block.astype(np.float32) for name, block in layers.gradient(x, dz).items()}

    target = layers.target(forward, backward, params)
    assert target.dtype == np.float32
    assert check(target).verdict == "pass"


def test_a_perturbation_is_no_pass():
    # ten times what a float64 layer promises, in one block only
    def backward(x, dz):
        grads = layers.gradient(x, dz)
        return {**grads, "b": grads["b"] * (1 + 1e-6)}

    report = check(layers.target(backward=backward))
    assert report.verdict == "inconclusive"
    assert named(report) == ("adjoint-not-solved",)
    assert [block.verdict for block in report.blocks if block.name == "b"] == ["wrong"]
    assert check(layers.target(backward=backward, tol=1e-5)).verdict == "pass"


@pytest.mark.parametrize("k", [0, 3])
def test_approximations_are_legitimate(k):
    def backward(x, dz):
        z = layers.state(x)
        jac = 1 - z**2
        w = dz
        for _ in range(k):
            w = dz + (jac * w) @ layers.W
        dpre = jac * w
        return {"W": dpre.T @ z, "U": dpre.T @ x, "b": dpre.sum(axis=0), "x": dpre @ layers.U}

    report = check(layers.target(backward=backward))
    assert report.verdict == "inconclusive"
    assert report.diagnosis[0].legitimate
    assert named(report)[0] == ("neumann" if k else "jfb")
    assert 0 < report.approximation.angle < 30
    assert report.approximation.descends
    assert report.approximation.guaranteed is True
    assert check(layers.target(backward=backward, rule=f"neumann:{k}" if k else "jfb")).verdict == "pass"


def test_unknown_is_called_unknown():
    def backward(x, dz):
        grads = layers.gradient(x, dz)
        return {**grads, "W": grads["W"] + 0.3 * abs(grads["W"])}

    report = check(layers.target(backward=backward))
    assert report.verdict == "fail"
    assert named(report) == ("unknown",)


def test_loose_forward_with_a_right_adjoint_is_not_accused():
    shift = np.random.default_rng(0).normal(size=3) * 1e-3

    def forward(x):
        return layers.state(x) + shift

    for z in (None, forward):

        def backward(x, dz, z=z):
            return layers.gradient(x, dz, None if z is None else z(x))

        report = check(layers.target(forward, backward))
        assert report.verdict == "inconclusive"
        assert named(report) == ("forward-not-solved",)


def test_stopped_forward_tells_its_steps():
    report = check(layers.target(lambda x: layers.state(x, steps=3)))
    assert report.verdict == "inconclusive"
    assert named(report)[0] == "forward-stopped"
    assert report.diagnosis[0].detail.startswith("k = 3 ")


def test_absolute_tolerance_is_found_by_scaling_the_loss():
    def backward(x, dz):
        return {name: np.where(abs(g) < 1e-5, 0.9 * g, g) for name, g in layers.gradient(x, dz).items()}

    report = check(layers.target(backward=backward), random_state=1)
    assert report.verdict == "fail"
    assert named(report) == ("absolute-tolerance",)


def test_a_small_absolute_tolerance_is_inconclusive():
    def backward(x, dz):
        return {name: g + 1e-11 for name, g in layers.gradient(x, dz).items()}

    report = check(layers.target(backward=backward))
    assert report.verdict == "inconclusive"
    assert named(report) == ("absolute-tolerance",)


def test_statistics_held_constant_are_named():
    def moments(x):
        return x.mean(axis=0), np.sqrt(x.var(axis=0) + 0.1)

    class Normalised:
        """z = z/2 + (x - mean)/std, the statistics of the batch differentiated or not."""

        def __init__(self, constant):
            self.constant = constant
            self.alternatives = {} if constant else {"constant statistics": Normalised(True)}

        def __call__(self, z, x):
            return z / 2 + (x - moments(x)[0]) / moments(x)[1]

        def vjp_state(self, z, x, g):
            return g / 2

        jvp_state = vjp_state

        def vjp_params(self, z, x, g):
            mean, std = moments(x)
            y = (x - mean) / std
            through = 0 if self.constant else g.mean(axis=0) + y * (g * y).mean(axis=0)
            return {"x": (g - through) / std}

    def target(constant):
        T = Normalised(constant)
        return crosscheck.from_callable(
            lambda x: 2 * T(0.0, x),
            lambda x, dz: T.vjp_params(None, x, 2 * dz),
            {},
            kind="generic",
            T=Normalised(False),
            input_shape=(3,),
        )

    assert named(check(target(True)))[0] == "statistics-constant"
    assert named(check(target(False)))[0] == "depends-on-the-batch"  # its gradient is right, and it does


def test_float32_inside_is_named():
    def backward(x, dz):
        grads = layers.gradient(x.astype(np.float32), dz.astype(np.float32))
        return {name: (g * (1 + 3e-7)).astype(np.float32).astype(np.float64) for name, g in grads.items()}

    report = check(layers.target(backward=backward))
    assert report.verdict == "fail"
    assert named(report) == ("float32-inside",)


def test_loose_along_a_slow_direction_is_no_wrong_equation():
    # all of z positive, B = 0: near z* the right residual is small, and without B or with a short step it is the same
    m, A, B = 1e-3, np.diag([0.0, 1.0, 2.0]), np.zeros((3, 3))
    W = (1 - m) * np.eye(3) - A.T @ A

    def state(x):
        return np.linalg.solve(np.eye(3) - W, x.T).T

    def loose(x):
        return state(x) * (1 + np.array([1e-2, 0.0, 0.0]))

    def backward(x, dz):
        dpre = np.linalg.solve(np.eye(3) - W, dz.T).T
        H = dpre.T @ state(x)
        return {"A": -A @ (H + H.T), "B": H - H.T, "x": dpre}

    x = np.random.default_rng(0).uniform(1, 2, size=(3, 3)) @ np.diag([1.0, 5.0, 9.0])
    for activation in (ir.activations.leaky_relu(0.1), ir.activations.elu(1.0), ir.activations.relu):
        keywords = {"kind": "mon-dense", "activation": activation, "m": m}
        assert check(crosscheck.from_callable(state, backward, {"A": A, "B": B}, **keywords), x=x).verdict == "pass"
        report = check(crosscheck.from_callable(loose, backward, {"A": A, "B": B}, **keywords), x=x)
        assert named(report) == ("forward-not-solved",)


def test_any_equilibrium_of_several_will_do():
    # z = tanh(2 z + x) has three for small x; by iteration from ones the layer finds the largest
    W = np.array([[2.0]])

    def largest(x):
        z = np.ones_like(x)
        for _ in range(200):
            z = np.tanh(2 * z + x)
        return z

    def backward(x, dz, slip=1.0):
        z = largest(x)
        dpre = slip * dz * (1 - z**2) / (1 - 2 * (1 - z**2))
        return {"W": dpre.T @ z, "x": dpre}

    def target(forward, backward):
        return crosscheck.from_callable(forward, backward, {"W": W}, kind="fixed-point", activation=ir.activations.tanh)

    x = np.array([[0.1], [-0.2], [0.05]])
    assert check(target(largest, backward), x=x).verdict == "pass"
    assert named(check(target(largest, lambda x, dz: backward(x, dz, 3.7)), x=x)) == ("unknown",)
    assert check(target(lambda x: 0.8 * largest(x), backward), x=x).verdict == "fail"


def test_an_adjoint_that_is_singular_accuses_nobody():
    # z = z + x - x: every state is an equilibrium, and nothing has a gradient
    singular = crosscheck.from_callable(
        lambda x: 0 * x, lambda x, dz: {"x": dz}, {"W": np.eye(2)}, kind="fixed-point", activation=IDENTITY
    )
    assert check(singular, x=np.zeros((1, 2))).verdict == "inconclusive"


def test_float16_has_a_range_of_its_own():
    params = {name: value.astype(np.float16) for name, value in layers.PARAMS.items()}

    def forward(x):
        return layers.state(x.astype(np.float64), np.float16)

    def backward(x, dz):
        with np.errstate(over="ignore"):
            grads = layers.gradient(x.astype(np.float64), dz.astype(np.float64))
            return {name: block.astype(np.float16) for name, block in grads.items()}

    assert check(layers.target(forward, backward, params)).verdict == "pass"


def test_an_imprecise_float32_adjoint_is_not_float32_inside():
    params = {name: value.astype(np.float32) for name, value in layers.PARAMS.items()}

    def backward(x, dz):
        shift = 1 + 5e-4 * np.array([1.0, -1.0, 0.5])
        grads = layers.gradient(x, dz)
        return {**{k: g.astype(np.float32) for k, g in grads.items()}, "b": (grads["b"] * shift).astype(np.float32)}

    report = check(layers.target(lambda x: layers.state(x, np.float32), backward, params))
    assert report.verdict == "inconclusive"
    assert named(report) == ("adjoint-not-solved",)


def test_one_wrong_number_is_not_named_by_chance():
    # of a hundred mistakes some fit one number to a loose tolerance
    W, x, dz = np.array([[0.6]], np.float32), np.array([[0.4]]), np.array([[1.0]])

    def state(x):
        z = np.zeros_like(x, dtype=np.float64)
        for _ in range(200):
            z = np.tanh(0.6 * z + x)
        return z

    def made(change):
        def backward(x, dz):
            J = 1 - state(x) ** 2
            return {"x": (change(J) * dz).astype(np.float32)}

        keywords = {"kind": "fixed-point", "activation": ir.activations.tanh, "tol": 1e-3}
        return crosscheck.from_callable(lambda x: state(x).astype(np.float32), backward, {"W": W}, **keywords)

    for factor in np.linspace(0.4, 0.9, 40):
        report = check(made(lambda J, factor=factor: factor * J / (1 - 0.6 * J)), x=x, dz=dz)
        assert named(report) == ("unknown",), (factor, report)
    assert named(check(made(lambda J: J), x=x, dz=dz))[0] == "jfb"


def test_kinks_are_not_accused():
    # z = relu(x) at x = 0: every slope in [0, 1] is right
    params, x, dz = {"W": np.zeros((2, 2))}, np.array([[0.0, 1.0]]), np.array([[1.0, 2.0]])
    for slope in (0.0, 0.4, 1.0):

        def backward(x, dz, slope=slope):
            dpre = np.where(x > 0, 1.0, np.where(x == 0, slope, 0.0)) * dz
            return {"W": dpre.T @ np.maximum(x, 0), "x": dpre}

        relu = crosscheck.from_callable(
            lambda x: np.maximum(x, 0), backward, params, kind="fixed-point", activation=ir.activations.relu
        )
        report = check(relu, x=x, dz=dz)
        assert report.verdict in ("pass", "inconclusive")
        assert report.kinks == 1
        assert check(relu).verdict == "pass"  # its own inputs keep away from kinks


# ------------------------------------------------------------------------------------------------
# Misbehaviour


def misbehaving():
    calls = np.random.default_rng(0)
    loud = np.array(layers.W)

    def raising(x):
        raise RuntimeError("no CUDA")

    def writing(x):
        x += 1
        return layers.state(x)

    def changing(x, dz):
        loud[0, 0] += 1.0
        return layers.gradient(x, dz)

    changed = crosscheck.Target(
        "fixed-point",
        layers.state,
        changing,
        lambda: {**layers.PARAMS, "W": loud},
        ir.activations.tanh,
        {},
        np.dtype(np.float64),
        1e-8,
    )
    return {
        "raises": layers.target(raising),
        "not-finite": layers.target(lambda x: layers.state(x) * np.nan),
        "wrong-shape": layers.target(lambda x: layers.state(x).T),
        "no-array": layers.target(lambda x: "z"),
        "no-gradient": layers.target(backward=lambda x, dz: {"weight": dz}),
        "input-changed": layers.target(writing),
        "parameters-changed": changed,
        "random": layers.target(lambda x: layers.state(x) * calls.choice([0.0, 2.0], size=(len(x), 3))),
        "depends-on-the-batch": layers.target(lambda x: layers.state(x - x.mean(axis=0))),
    }


@pytest.mark.parametrize("name", misbehaving())
def test_misbehaviour_is_named(name):
    report = check(misbehaving()[name])
    assert report.verdict == "fail"
    assert named(report)[0] == name
    assert name in str(report)


def test_gradient_that_depends_on_the_batch():
    def backward(x, dz):
        return layers.gradient(x, dz - dz.mean(axis=0))

    assert "depends-on-the-batch" in {finding.name for finding in check(layers.target(backward=backward)).diagnosis}


def test_second_derivative():
    def hessian(x, dz, v, h=1e-5):
        return (layers.gradient(x + h * v, dz)["x"] - layers.gradient(x - h * v, dz)["x"]) / (2 * h)

    assert check(layers.target(second=hessian)).verdict == "pass"
    report = check(layers.target(second=lambda x, dz, v: 0.5 * hessian(x, dz, v)))
    assert report.verdict == "fail"
    assert named(report) == ("second-derivative",)


def test_second_derivative_near_a_kink_is_not_accused():
    # z = relu(x): zero almost everywhere, and the gradient jumps within the step of a difference
    relu = crosscheck.from_callable(
        lambda x: np.maximum(x, 0),
        lambda x, dz: {"W": (dz * (x > 0)).T @ np.maximum(x, 0), "x": dz * (x > 0)},
        {"W": np.zeros((2, 2))},
        kind="fixed-point",
        activation=ir.activations.relu,
        second=lambda x, dz, v: 0 * x,
    )
    assert check(relu, x=np.array([[1e-6, 1.0]]), dz=np.array([[1.0, 2.0]])).verdict == "pass"


# ------------------------------------------------------------------------------------------------
# Reports and arguments


def test_every_form_of_the_report(tmp_path):
    report = check(layers.target(backward=lambda x, dz: {k: 2 * g for k, g in layers.gradient(x, dz).items()}))
    data = json.loads(report.to_json())
    assert data["schema"] == "implicitref-crosscheck"
    assert data["verdict"] == "fail"
    assert data["diagnosis"][0]["name"] == "factor-two"
    assert [block["factor"] for block in data["blocks"]] == pytest.approx([2.0] * 4)
    assert "| W | wrong |" in report.to_markdown()
    page = report.to_html()
    assert page.count("<svg") == 4
    assert "factor-two" in page
    assert "[MON-Eq11]" in str(report)


def test_html_is_escaped():
    report = check(layers.target(lambda x: [][1], name="<script>"))
    assert "<script>" not in report.to_html()


def test_assert_correct():
    assert crosscheck.assert_correct(layers.target()).passed
    with pytest.raises(crosscheck.CrosscheckError, match="minus the gradient") as caught:
        crosscheck.assert_correct(layers.target(backward=lambda x, dz: layers.gradient(x, -dz)))
    assert caught.value.report.verdict == "fail"


def test_arguments_are_refused_by_name():
    with pytest.raises(TypeError, match="target must be made by"):
        check(layers.state)
    with pytest.raises(ir.ShapeError, match=r"x must have shape \(batch, 2\)"):
        check(layers.target(), x=np.zeros((2, 3)))
    with pytest.raises(ir.ShapeError, match="dz must have the shape of the output"):
        check(layers.target(), dz=np.zeros((2, 2)))
    with pytest.raises(ir.HypothesisError, match="kind must be one of"):
        crosscheck.from_callable(layers.state, layers.gradient, layers.PARAMS, kind="deq")
    with pytest.raises(ir.HypothesisError, match="needs 'm'"):
        crosscheck.from_callable(layers.state, layers.gradient, {"A": layers.W, "B": layers.W})
    with pytest.raises(ir.HypothesisError, match="rule must be"):
        layers.target(rule="exact")
    with pytest.raises(ir.HypothesisError, match="are called W, U, b; got bias"):
        layers.target(params={**layers.PARAMS, "bias": layers.b})
    with pytest.raises(ir.HypothesisError, match="has the settings m; got size"):
        crosscheck.from_callable(layers.state, layers.gradient, {"A": layers.W, "B": layers.W}, m=1.0, size=(3, 3))
    with pytest.raises(TypeError, match="activation must be one of"):
        crosscheck.from_callable(layers.state, layers.gradient, layers.PARAMS, kind="fixed-point", activation=np.tanh)
    with pytest.raises(ir.HypothesisError, match="generic needs T"):
        crosscheck.from_callable(layers.state, layers.gradient, {}, kind="generic", T=None)


REFUSED = {
    "no number": (lambda: check(layers.target(), dz=np.full((2, 3), np.nan), x=np.ones((2, 2))), "dz must be real"),
    "no shape of x": (
        lambda: check(crosscheck.from_callable(layers.state, layers.gradient, {}, kind="generic", T=lambda z, x: z)),
        "x must be given",
    ),
    "kernels of another size": (
        lambda: crosscheck.from_callable(
            layers.state, layers.gradient, {"A": layers.W, "B": layers.W, "U": np.ones((3, 2, 5, 5))}, m=1.0
        ),
        r"U must be a matrix \(n, d\) or kernels",
    ),
    "a fixed point's kernels": (
        lambda: layers.target(params={**layers.PARAMS, "U": np.ones((3, 2, 3, 3))}),
        "U of a fixed-point layer must be a matrix",
    ),
    "a second derivative of an approximation": (
        lambda: layers.target(rule="jfb", second=lambda x, dz, v: x),
        "of rule='implicit' only",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_checked_is_said(what):
    call, words = REFUSED[what]
    with pytest.raises((ir.HypothesisError, ir.ShapeError), match=words):
        call()


def test_a_backward_that_returns_a_tuple_is_a_finding():
    report = check(layers.target(backward=lambda x, dz: tuple(layers.gradient(x, dz).values())))
    assert "backward returns tuple, not a dict of blocks" in str(report)


def test_blocks_that_are_left_out_are_not_given():
    def backward(x, dz):
        return {name: block for name, block in layers.gradient(x, dz).items() if name != "U"}

    assert "U not given" in " ".join(str(check(layers.target(backward=backward))).split())


def test_modules_are_found_by_name_or_file(tmp_path, monkeypatch):
    (tmp_path / "made_of_numbers.py").write_text("number = 3\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for where, error, words in (
        ("made_of_numbers:number", TypeError, "must be a Target of implicitref.crosscheck, or return one; got int"),
        (f"{tmp_path}/absent.py:layer", ValueError, "is no file"),
    ):
        with pytest.raises(error, match=words):
            locate.located(where)


def test_gains_of_large_systems_are_estimated_from_below():
    # I - K = diag(1/4, 1, 1/4, 1, ...): the largest gain is 4, and a singular one has no end
    shrunk, g = np.tile([0.75, 0.0], 150), np.ones((1, 300))
    assert systems.inverse_norm(lambda w: shrunk[: w.size] * w, g[:, :9]) == pytest.approx(4)
    assert 3 < systems.inverse_norm(lambda w: shrunk * w, g) <= 4 * (1 + 1e-9)
    assert systems.inverse_norm(lambda w: w, g) == np.inf


def test_a_map_that_raises_is_a_finding():
    class T:
        def __call__(self, z, x):
            raise RuntimeError("no such device")

    target = crosscheck.from_callable(layers.state, layers.gradient, {}, kind="generic", T=T(), input_shape=(2,))
    report = check(target)
    assert report.verdict == "fail"
    assert named(report) == ("raises",)
    assert "no such device" in str(report)


def test_command_line(tmp_path, capsys):
    from implicitref import __main__ as cli

    file = tmp_path / "their_layer.py"
    file.write_text(
        "from __future__ import annotations\nimport dataclasses\n"
        "import sys\nsys.path.insert(0, " + repr(str(layers.__file__).rpartition("/")[0]) + ")\n"
        "import small_layers as layers\n"
        "@dataclasses.dataclass\nclass Config:\n    size: int = 3\n"
        "right = layers.target()\n"
        "def wrong():\n    return layers.target(backward=lambda x, dz: layers.gradient(x, 2 * dz))\n"
        "def loose():\n    return layers.target(lambda x: layers.state(x, steps=4))\n",
        encoding="utf-8",
    )
    for name, status in (("right", 0), ("wrong", 1), ("loose", 3), ("absent", 2)):
        assert cli.main(["crosscheck", f"{file}:{name}", "--json", str(tmp_path / "r.json")]) == status
        output = capsys.readouterr()
        assert (output.out if status != 2 else output.err).strip()
    assert json.loads((tmp_path / "r.json").read_text())["verdict"] == "inconclusive"
    assert cli.main(["crosscheck", "layer.py"]) == 2
    assert "FILE.py:NAME" in capsys.readouterr().err


def test_library_is_well_made():
    library = [*crosscheck.LIBRARY, *crosscheck.FORWARD]
    names = [mistake.name for mistake in library]
    assert len(set(names)) == len(names) >= 30
    known = {identifier for identifier in ir.claims.load()}
    assert {mistake.source for mistake in library} <= known
    assert all(mistake.says and mistake.remedy.endswith(".") for mistake in library)
