"""The ground floor: checks at the door, moves between libraries, norms, errors."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from oracles import assert_close

import implicitref as ir
from implicitref import arrays


def test_round_trip_through_the_host(backend):
    values = np.random.default_rng(0).normal(size=(2, 3))
    x = backend(values)
    np.testing.assert_array_equal(arrays.to_numpy(x), backend.numpy(x))
    again = arrays.from_numpy(values, x)
    assert arrays.namespace(again) is arrays.namespace(x)
    assert again.dtype == x.dtype
    np.testing.assert_array_equal(backend.numpy(again), backend.numpy(x))


def test_like_keeps_what_already_fits_and_converts_the_rest(backend):
    x = backend(np.ones(2))
    assert arrays.like(x, x) is x
    for value in (np.float32([0.5, 0.25]), np.float64([0.5, 0.25]), np.array([0.5, 0.25], dtype=">f8")):
        moved = arrays.like(x, value)
        assert moved.dtype == x.dtype
        np.testing.assert_array_equal(backend.numpy(moved), [0.5, 0.25])
    assert float(arrays.like(x, 2.0)) == 2.0


def test_eps_eye_norm_largest(backend):
    x = backend(np.array([[3.0, 4.0], [0.0, -1.0]]))
    assert arrays.eps(x) == backend.eps
    np.testing.assert_array_equal(backend.numpy(arrays.eye(2, x)), np.eye(2))
    assert_close(backend.numpy(arrays.norm(x)), [5.0, 1.0], scale=5, tol=4 * backend.eps)
    assert arrays.largest(x) == 4.0
    images = backend(np.ones((2, 3, 2, 2)))
    assert_close(backend.numpy(arrays.norm(images)), [12**0.5] * 2, scale=5, tol=4 * backend.eps)
    assert arrays.norm(backend(np.ones((0, 3)))).shape == (0,)
    assert arrays.largest(backend(np.ones((0,)))) == 0.0


@pytest.mark.parametrize("size", [1e-200, 1e-10, 1.0, 1e17, 1e200])
def test_norms_where_squares_leave_the_range(backend, size):
    x = backend(np.full((1, 4), size if backend.eps < 1e-10 else size**0.15))
    entry = float(backend.numpy(x)[0, 0])
    with arrays.quiet():
        found = arrays.total_norm(x), float(backend.numpy(arrays.norm(x))[0])
    assert found == pytest.approx((2 * entry, 2 * entry), rel=8 * backend.eps)


def test_largest_sees_nan():
    assert math.isnan(arrays.largest(np.array([1.0, np.nan, 0.0])))


def test_double_where_the_device_has_it(backend):
    wide = arrays.in_double(backend(np.ones(2)))
    can = backend.name != "strict-no_float64"
    assert arrays.has_double(backend(np.ones(2))) == can
    assert arrays.eps(wide) == (np.finfo(np.float64).eps if can else backend.eps)


def test_checked_accepts_and_names(backend):
    x = backend(np.ones((2, 3)))
    assert arrays.checked("x", x, 2) is x
    with pytest.raises(ir.ShapeError, match=r"x must have 2 axes; got shape \(3,\).*x\[None\]"):
        arrays.checked("x", backend(np.ones(3)), 2)
    with pytest.raises(ir.ShapeError, match="must have 2 axes") as caught:
        arrays.checked("x", backend(np.ones((1, 1, 1))), 2)
    assert "[None]" not in str(caught.value)
    with pytest.raises(ir.HypothesisError, match="x must be finite; it holds 2 NaN or infinite"):
        arrays.checked("x", backend(np.array([[np.nan, 1.0, -np.inf]])), 2)


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.complex128, np.float16, np.longdouble])
def test_checked_refuses_other_dtypes(dtype):
    with pytest.raises(ir.HypothesisError, match="x must be float32 or float64; got dtype"):
        arrays.checked("x", np.ones(2, dtype=dtype))


@pytest.mark.parametrize("value", [[1.0], 1.0, None, "x", (1.0, 2.0)])
def test_checked_refuses_what_is_no_array(value):
    with pytest.raises(TypeError, match="x must be an array"):
        arrays.checked("x", value)


def test_byte_swapped_arrays_become_native():
    x = arrays.checked("x", np.array([1.0, 2.0], dtype=">f8"))
    assert x.dtype == np.dtype("=f8")
    np.testing.assert_array_equal(x, [1.0, 2.0])


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, None, "a", [1.0, 2.0]])
def test_positive_refuses(value):
    with pytest.raises(ir.HypothesisError, match=r"tol must be a (finite )?number > 0"):
        arrays.positive("tol", value)


def test_positive_accepts_anything_like_a_number():
    assert [arrays.positive("m", v) for v in (1, 0.5, np.float32(2.0), np.array(3.0))] == [1.0, 0.5, 2.0, 3.0]


def test_owned_is_a_copy_that_nobody_writes_to(backend):
    x = backend(np.ones(2))
    copy = arrays.owned(x)
    assert (copy is x) == (backend.is_numpy and not x.flags.writeable)  # read-only already: kept
    np.testing.assert_array_equal(backend.numpy(copy), [1.0, 1.0])
    if backend.is_numpy:
        assert copy is x or not np.shares_memory(copy, x)
        assert not copy.flags.writeable


def test_mixed_libraries_are_a_type_error():
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(TypeError):
        arrays.namespace(np.ones(2), strict.ones(2))


def test_memoised_results_are_kept_on_the_object_by_argument():
    class Counts:
        calls = 0

        @arrays.memoised
        def square(self, x):
            self.calls += 1
            return x * x

    one, two = Counts(), Counts()
    assert [one.square(2), one.square(2), one.square(3), two.square(2)] == [4, 4, 9, 4]
    assert (one.calls, two.calls) == (2, 1)


@pytest.mark.parametrize("error", [ir.ShapeError, ir.HypothesisError])
def test_errors_are_value_errors(error):
    assert issubclass(error, ValueError)


def test_convergence_error_carries_its_solution_through_pickle():
    error = pickle.loads(pickle.dumps(ir.ConvergenceError("why", {"z": 1})))
    assert isinstance(error, RuntimeError)
    assert (str(error), error.solution) == ("why", {"z": 1})


def test_owned_keeps_what_nobody_can_write_to():
    x = np.arange(6.0).reshape(2, 3)
    once = arrays.owned(x, (1, 0))
    assert arrays.owned(once, (1, 0)) is once
    assert arrays.owned(once) is once
    assert arrays.owned(once, (0, 1)) is not once  # another order in memory
    view = x[:]
    view.flags.writeable = False  # of memory that its owner may still write to
    assert arrays.owned(view) is not view
    x[:] = 0
    np.testing.assert_array_equal(once, [[0, 1, 2], [3, 4, 5]])
    with pytest.raises(ValueError, match="read-only"):
        once[0, 0] = 1


@pytest.mark.parametrize("shape", [(3, 4), (600, 600)])
def test_zeros_alike_are_zeros_that_take_no_memory_where_large(shape):
    zeros = arrays.zeros_alike(np.ones(shape, np.float32))
    assert zeros.shape == shape
    assert zeros.dtype == np.float32
    assert not zeros.any()
    assert (zeros.strides == (0, 0)) == (shape == (600, 600))


def test_real_and_complex_numbers_follow():
    re, im = np.float32([1.0, 2.0]), np.float32([3.0, -4.0])
    z = arrays.complex_of(re, im)
    assert z.dtype == np.complex64
    np.testing.assert_array_equal(z, [1 + 3j, 2 - 4j])
    assert arrays.real_like(z, np.float64([1.0])).dtype == np.float32


def test_integers_beyond_every_float_are_infinite_numbers():
    assert arrays.as_number(10**400) == math.inf
    assert arrays.as_number(-(10**400)) == -math.inf


def test_numbers_that_are_not_negative():
    assert [arrays.nonnegative("x", value) for value in (0, 0.5, np.float32(2))] == [0.0, 0.5, 2.0]
    for value in (-1e-300, np.inf, np.nan, "1", None, np.ones(2)):
        with pytest.raises(ir.HypothesisError, match="x must be a finite number >= 0"):
            arrays.nonnegative("x", value)
