"""Circular convolutions as one block a frequency: the fast form, the readable form and the definition (appendix B)."""

from __future__ import annotations

import laws
import numpy as np
import oracles
import pytest
import scipy.ndimage
import strategies
from hypothesis import example, given
from hypothesis import strategies as st
from oracles import assert_close, size

from implicitref.operators import FourierMap, Transpose, fourier

sides = st.tuples(st.integers(1, 8), st.integers(1, 8))
supports = st.tuples(st.integers(1, 7), st.integers(1, 7))
channels = st.tuples(st.integers(1, 3), st.integers(1, 3))
grid = given(shape=sides, support=supports, channels=channels, seed=strategies.seeds, batch=st.integers(0, 3))


def draw(shape, support, channels, seed, batch=2):
    """A kernel (out, in, kh, kw), inputs and outputs."""
    rng, (o, i) = np.random.default_rng(seed), channels
    kernel = rng.normal(size=(o, i, *support)) / (i * support[0] * support[1]) ** 0.5
    return kernel, rng.normal(size=(batch, i, *shape)), rng.normal(size=(batch, o, *shape))


def conv(kernel, shape):
    return FourierMap(fourier.blocks(kernel, shape), shape)


def full_spectrum(kernel, shape):
    """The blocks of every frequency, from numpy.fft of the kernel embedded in an image."""
    image = np.zeros((*kernel.shape[:2], *shape))
    for a, b in np.ndindex(kernel.shape[2:]):
        at = (a - (kernel.shape[2] - 1) // 2) % shape[0], (b - (kernel.shape[3] - 1) // 2) % shape[1]
        image[:, :, *at] += kernel[:, :, a, b]
    return np.conj(np.fft.fft2(image)).transpose(2, 3, 0, 1)


# ------------------------------------------------------------------------------------------------
# One convolution, five ways


@pytest.mark.claim("MON-Eq26")
@pytest.mark.claim("MON-Eq27")
@pytest.mark.claim("MON-EqB1")
@grid
@example(shape=(8, 7), support=(7, 6), channels=(3, 2), seed=0, batch=2)
@example(shape=(1, 1), support=(7, 7), channels=(1, 1), seed=0, batch=1)
@example(shape=(1, 8), support=(2, 2), channels=(2, 3), seed=0, batch=1)
def test_products_are_the_definition(shape, support, channels, seed, batch):
    kernel, x, y = draw(shape, support, channels, seed, batch)
    K, M = conv(kernel, shape), oracles.correlation(kernel, shape)
    forward, backward = laws.flat(x) @ M.T if batch else x[:, :0], laws.flat(y) @ M if batch else y[:, :0]
    scale = size(x, y) * size(M) * M.shape[1]
    for found, desired in (
        (K.matvec(x), forward),
        (fourier.product(K.D, x), forward),
        (K.rmatvec(y), backward),
        (fourier.FourierMap(fourier.adjoint(K.D), K.size).matvec(y), backward),
        (fourier.product(fourier.adjoint(K.D), y), backward),
    ):
        assert found.shape[0] == batch
        if batch:
            assert_close(laws.flat(found), desired, scale=scale, tol=1e-14)
            assert np.linalg.norm(laws.flat(found) - desired) <= 1e-12 * np.linalg.norm(desired)
    assert_close(K.to_dense(), M, scale=size(M) * M.shape[1], tol=1e-14)


@pytest.mark.parametrize("shape", [(66, 3), (3, 67), (70, 65)])
def test_sides_beyond_the_matrices_go_by_the_fft(shape):
    kernel, x, y = draw(shape, (3, 4), (2, 3), seed=1)
    K = conv(kernel, shape)
    for found, given_, spatial in ((K.matvec(x), x, by_ndimage), (K.rmatvec(y), y, by_ndimage_transposed)):
        assert_close(found, spatial(kernel, given_), scale=size(x, y), tol=1e-12)
    left, right = (K.matvec(x) * y).sum(), (x * K.rmatvec(y)).sum()
    assert_close(left, right, scale=np.linalg.norm(x) * np.linalg.norm(y), tol=1e-13)
    H = fourier.cross_spectrum(y, x)
    np.testing.assert_allclose(H, full_cross_spectrum(y, x)[: shape[0] // 2 + 1], rtol=0, atol=1e-10 * x.size)
    for double, narrow in ((np.float64, np.float32), (np.float32, np.float64)):  # results follow the states
        M = FourierMap(fourier.blocks(kernel.astype(double), shape), shape)
        assert M.matvec(x.astype(narrow)).dtype == narrow
        assert_close(M.matvec(x.astype(narrow)), K.matvec(x), scale=size(x), tol=1e-5)


def full_cross_spectrum(y, z):
    Y, Z = (np.fft.fft2(images).transpose(2, 3, 1, 0) for images in (y, z))
    return Y @ np.conj(Z).swapaxes(-1, -2)


def by_ndimage(kernel, x):
    """SciPy's correlation in wrap mode; its centre is k//2 + origin."""
    origin = [(k - 1) // 2 - k // 2 for k in kernel.shape[2:]]
    return np.stack(
        [
            [
                sum(
                    scipy.ndimage.correlate(z, k, mode="grid-wrap", origin=origin)
                    for z, k in zip(image, row, strict=True)
                )
                for row in kernel
            ]
            for image in x
        ]
    )


def by_ndimage_transposed(kernel, y):
    """The adjoint of a correlation is the convolution: the flipped kernel, its centre on the other side."""
    flipped = np.flip(kernel, axis=(2, 3)).transpose(1, 0, 2, 3)
    if kernel.shape[2] % 2 and kernel.shape[3] % 2:
        return by_ndimage(flipped, y)
    wider = [(0, 0), (0, 0), *((1 - k % 2, 0) for k in kernel.shape[2:])]  # even to odd: a row of zeros in front
    return by_ndimage(np.flip(np.pad(kernel, wider), axis=(2, 3)).transpose(1, 0, 2, 3), y)


@grid
def test_the_oracle_is_what_scipy_computes(shape, support, channels, seed, batch):
    support = tuple(min(k, n) for k, n in zip(support, shape, strict=True))
    kernel, x, y = draw(shape, support, channels, seed, batch + 1)
    M = oracles.correlation(kernel, shape)
    assert_close(laws.flat(by_ndimage(kernel, x)), laws.flat(x) @ M.T, scale=size(x) * M.shape[1], tol=1e-14)
    assert_close(laws.flat(by_ndimage_transposed(kernel, y)), laws.flat(y) @ M, scale=size(y) * M.shape[0], tol=1e-14)


@pytest.mark.claim("MON-Eq27")
@pytest.mark.claim("MON-EqB2")
@pytest.mark.claim("MON-EqB3")
@grid
def test_half_the_spectrum_says_everything(shape, support, channels, seed, batch):
    # the blocks are those of numpy.fft, the other half is their mirror image, and nothing imaginary is left
    kernel, x, _ = draw(shape, support, channels, seed, batch + 1)
    D, half = full_spectrum(kernel, shape), fourier.blocks(kernel, shape)
    scale = size(kernel) * kernel[0, 0].size
    assert_close(np.abs(half - D[: shape[0] // 2 + 1]), np.zeros(half.shape), scale=scale, tol=1e-14)
    mirrored = np.conj(np.roll(D[::-1, ::-1], (1, 1), axis=(0, 1)))
    assert_close(np.abs(D - mirrored), np.zeros(D.shape), scale=scale, tol=1e-14)
    image = np.fft.ifft2((D @ np.fft.fft2(x).transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1))
    assert_close(image.imag, np.zeros(image.shape), scale=scale * size(x) * image.shape[1], tol=1e-14)
    assert_close(conv(kernel, shape).matvec(x), image.real, scale=scale * size(x), tol=1e-14 * 8)
    assert conv(kernel, shape).matvec(x).dtype == np.float64


@grid
def test_norms_from_the_blocks(shape, support, channels, seed, batch):
    # Parseval, the operator norm, and the singular values, all from one half
    kernel, *_ = draw(shape, support, channels, seed)
    M, D = oracles.correlation(kernel, shape), fourier.blocks(kernel, shape)
    assert_close(np.linalg.svd(D)[1].max(), np.linalg.norm(M, 2), scale=size(M) * M.shape[1], tol=1e-14)


# ------------------------------------------------------------------------------------------------
# Gradients by the blocks and by the kernel


@grid
def test_kernel_gradient_is_the_adjoint_of_blocks(shape, support, channels, seed, batch):
    # C(y, z)[o, i, d] = sum_x y_o(x) z_i(x + d - centre), by rolls
    kernel, z, y = draw(shape, support, channels, seed, batch + 1)
    desired = np.empty_like(kernel)
    for a, b in np.ndindex(support):
        seen = np.roll(z, ((support[0] - 1) // 2 - a, (support[1] - 1) // 2 - b), axis=(2, 3))
        desired[:, :, a, b] = np.einsum("nohw,nihw->oi", y, seen)
    gradient = fourier.kernel_gradient(fourier.cross_spectrum(y, z), shape, support)
    assert_close(gradient, desired, scale=size(y, z) ** 2 * z.size, tol=1e-14)
    left, right = (conv(kernel, shape).matvec(z) * y).sum(), (gradient * kernel).sum()
    assert_close(left, right, scale=size(y, z) ** 2 * z.size * size(kernel), tol=1e-14 * 8)


# ------------------------------------------------------------------------------------------------
# Symmetries


@given(shape=sides, support=supports, seed=strategies.seeds, shift=st.tuples(st.integers(-9, 9), st.integers(-9, 9)))
def test_shift_equivariance(shape, support, seed, shift):
    kernel, x, _ = draw(shape, support, (2, 2), seed)
    K, moved = conv(kernel, shape), lambda images: np.roll(images, shift, axis=(2, 3))
    for matvec in (K.matvec, K.rmatvec, FourierMap(np.linalg.inv(3 * np.eye(2) + K.D), shape).matvec):
        assert_close(matvec(moved(x)), moved(matvec(x)), scale=size(matvec(x)), tol=1e-13)


@given(shape=sides, support=supports, seed=strategies.seeds)
def test_reflected_images_and_flipped_kernels(shape, support, seed):
    # for an even kernel the centre moves to the other of the two middle pixels: one pixel less per even side
    kernel, x, _ = draw(shape, support, (2, 3), seed)
    reflect = lambda images: np.flip(images, axis=(2, 3))  # noqa: E731
    flipped = conv(np.ascontiguousarray(reflect(kernel)), shape).matvec(reflect(x))
    back = tuple(1 - k % 2 for k in support)
    desired = np.roll(conv(kernel, shape).matvec(x), back, axis=(2, 3))
    assert_close(reflect(flipped), desired, scale=size(x), tol=1e-13)


@given(shape=sides, support=supports, seed=strategies.seeds)
def test_transposed_images_and_kernels(shape, support, seed):
    kernel, x, _ = draw(shape, support, (2, 3), seed)
    turn = lambda images: np.ascontiguousarray(np.swapaxes(images, 2, 3))  # noqa: E731
    assert_close(
        conv(turn(kernel), shape[::-1]).matvec(turn(x)), turn(conv(kernel, shape).matvec(x)), scale=size(x), tol=1e-13
    )


@given(shape=sides, support=supports, seed=strategies.seeds)
def test_a_constant_image_is_multiplied_by_the_sum_of_the_kernel(shape, support, seed):
    kernel, *_ = draw(shape, support, (2, 3), seed)
    constant = np.broadcast_to(np.array([1.0, -2.0, 0.5])[:, None, None], (1, 3, *shape))
    image = conv(kernel, shape).matvec(constant)
    desired = np.broadcast_to((kernel.sum((2, 3)) @ [1.0, -2.0, 0.5])[:, None, None], image.shape)
    assert_close(image, desired, scale=size(kernel) * kernel[0].size, tol=1e-14)


def test_the_composition_of_maps_is_the_product_of_their_blocks():
    (first, x, _), (second, *_) = (draw((5, 4), support, (3, 3), seed) for seed, support in ((1, (3, 2)), (2, (4, 5))))
    one, two = conv(first, (5, 4)), conv(second, (5, 4))
    assert_close(FourierMap(two.D @ one.D, (5, 4)).matvec(x), two.matvec(one.matvec(x)), scale=size(x), tol=1e-13)
    assert_close(Transpose(one).to_dense(), one.to_dense().T, scale=1, tol=1e-15)


# ------------------------------------------------------------------------------------------------
# Layouts, precisions and libraries


def spread(x):
    wide = np.full((2 * x.shape[0], x.shape[1], 2 * x.shape[2], 3 * x.shape[3]), np.nan)
    wide[::2, :, ::2, ::3] = x
    return wide[::2, :, ::2, ::3]


LAYOUTS = {
    "batch last": lambda x: np.ascontiguousarray(x.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2),
    "channels last": lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "Fortran order": np.asfortranarray,
    "gaps": spread,
    "negative strides": lambda x: x[::-1, :, ::-1].copy()[::-1, :, ::-1],
    "read-only": lambda x: np.frombuffer(x.tobytes()).reshape(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(5, 6), (2, 65)])
def test_layouts_in_memory(layout, shape):
    kernel, x, y = draw(shape, (3, 2), (2, 3), seed=3, batch=4)
    K, to = conv(kernel, shape), LAYOUTS[layout]
    before = to(x).copy()
    assert_close(K.matvec(to(x)), K.matvec(x), scale=size(x), tol=1e-14)
    assert_close(K.rmatvec(to(y)), K.rmatvec(y), scale=size(y), tol=1e-14)
    np.testing.assert_array_equal(to(x), before)
    for image, alone in zip(K.matvec(x), x, strict=True):
        assert_close(K.matvec(alone[None])[0], image, scale=size(x), tol=1e-14)
    again = K.matvec(x)
    again += 1.0  # results are the caller's own
    assert_close(K.matvec(x), again - 1.0, scale=size(x), tol=1e-14)


@pytest.mark.parametrize("shape", [(4, 5), (3, 65)])
def test_every_backend(backend, shape):
    kernel, x, y = draw(shape, (3, 2), (2, 3), seed=4)
    M, K = oracles.correlation(kernel, shape), FourierMap(fourier.blocks(backend(kernel), shape), shape)
    for found, desired in (
        (K.matvec(backend(x)), laws.flat(x) @ M.T),
        (fourier.product(K.D, backend(x)), laws.flat(x) @ M.T),
        (K.rmatvec(backend(y)), laws.flat(y) @ M),
    ):
        assert found.dtype == backend(x).dtype
        assert_close(laws.flat(backend.numpy(found)), desired, scale=8 * size(x), tol=16 * backend.eps)
    H = fourier.cross_spectrum(backend(y), backend(x))
    gradient = fourier.kernel_gradient(H, shape, (3, 2))
    desired = fourier.kernel_gradient(fourier.cross_spectrum(y, x), shape, (3, 2))
    assert_close(backend.numpy(gradient), desired, scale=size(desired), tol=64 * backend.eps)
    assert gradient.dtype == backend(x).dtype
