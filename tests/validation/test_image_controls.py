"""Negative controls for the checks of convolutions and tiers: the verdicts notice each planted bug."""

from __future__ import annotations

import importlib
import types

import numpy as np
import pytest
from planted import check_noticed

from implicitref import claims
from implicitref.activations import zero_border
from implicitref.networks import ends, tables
from implicitref.operators import FourierMap, MonotoneConv, MonotoneMultiTier, StridedMap, conv, strided

NAME = claims.validation().__name__
run = importlib.import_module(f"{NAME}.run")
appendix_b = importlib.import_module(f"{NAME}.appendix_b")
circulant = importlib.import_module(f"{NAME}.circulant")
printed = importlib.import_module(f"{NAME}.printed")


def reversed_kernels(patch):
    right = conv.blocks
    for module in (conv, appendix_b):
        patch.setattr(module, "blocks", lambda kernel, size: right(kernel[..., ::-1, ::-1], size))


def skew_without_alpha(patch):
    def wrong(self, alpha):
        height, width = self.size
        W = np.reshape(self.spectral_blocks(), (height // 2 + 1, width, self.channels, self.channels))
        skew = (W - W.conj().swapaxes(-1, -2)) / 2
        shifted = (1 + alpha) * np.eye(self.channels) - alpha * W
        return FourierMap(np.linalg.inv(shifted + (alpha - 1) * skew), self.size)

    patch.setattr(MonotoneConv, "resolvent", wrong)


def norm_of_the_first_block(patch):
    def wrong(self):
        return float(np.linalg.norm(np.eye(self.channels) - np.asarray(self.spectral_blocks())[0], 2))

    patch.setattr(MonotoneConv, "lipschitz", wrong)


def two_passes_for_one(patch):
    patch.setattr(FourierMap, "cayley", lambda self: FourierMap(2 * self.D, self.size))


def no_square(patch):
    right = MonotoneConv.matvec
    patch.setattr(MonotoneConv, "matvec", lambda self, z: right(self.replace(A=0 * self.A), z))


def whole_spectrum(patch):
    patch.setattr(appendix_b, "spectrum", lambda x: np.transpose(np.fft.fft2(x), (2, 3, 1, 0)))


def refactored_every_time(patch):
    patch.setattr(MonotoneConv, "_resolvent", MonotoneConv._resolvent.__wrapped__)


def border_of_one(patch):
    patch.setattr(appendix_b, "zero_padded", lambda W, activation, width=1: zero_border(activation, width))


def scale_1_over_s(patch):
    patch.setattr(circulant, "basis", printed.fourier_basis)
    circulant.fourier.cache_clear()


def kernels_not_normalised(patch):
    right = MonotoneConv.to_dense
    patch.setattr(MonotoneConv, "to_dense", lambda self: right(self.replace(g=None, h=None)))


def tiers_not_normalised(patch):
    right = MonotoneMultiTier.to_dense
    patch.setattr(MonotoneMultiTier, "to_dense", lambda self: right(self.replace(gs=None)))


def tiers_transposed(patch):
    right = MonotoneMultiTier.to_dense
    patch.setattr(MonotoneMultiTier, "to_dense", lambda self: right(self).T)


def resolvent_of_step_one(patch):
    right = MonotoneMultiTier.resolvent
    patch.setattr(MonotoneMultiTier, "resolvent", lambda self, alpha: right(self, 1.0))


def resolvent_not_transposed(patch):
    right = MonotoneMultiTier.resolvent

    def wrong(self, alpha):
        V = right(self, alpha)
        return types.SimpleNamespace(matvec=V.matvec, rmatvec=V.matvec)

    patch.setattr(MonotoneMultiTier, "resolvent", wrong)


def printed_factor(patch):
    right = strided.coupled_inverse
    # a scale of D_B by 1/s is the factor s^2 r^2 in place of r^2
    patch.setattr(strided, "coupled_inverse", lambda D_A, D_B, s, r: right(s**2 * D_A, D_B, s, r) / s**2)


def aliases_averaged(patch):
    right = strided.fold
    patch.setattr(strided, "fold", lambda X, size, stride: right(X, size, stride) / (stride[0] * stride[1]))


def other_pixels(patch):
    patch.setattr(
        strided, "subsample", lambda x, stride: x[:, :, stride[0] - 1 :: stride[0], stride[1] - 1 :: stride[1]]
    )


def transpose_without_zeros(patch):
    right = StridedMap.rmatvec
    patch.setattr(StridedMap, "rmatvec", lambda self, y: 2 * right(self, y))


def shuffle_transposed(patch):
    right = strided.shuffle
    patch.setattr(strided, "shuffle", lambda a, b: right(b, a))


def printed_mask(patch):
    patch.setattr(strided, "kept", lambda s, r: printed.equation_c17(r, s))


def printed_folding(patch):
    right = strided.congruent
    patch.setattr(strided, "congruent", lambda s, r: right(s, r) / s)


def smaller_windows(patch):
    patch.setattr(tables, "POOL", 3)


def sums_for_averages(patch):
    right = ends.average_pool
    patch.setattr(ends, "average_pool", lambda x, window: window**2 * right(x, window))


CONTROLS = [
    (reversed_kernels, "MON-Eq27"),
    (reversed_kernels, "MON-EqB1"),
    (reversed_kernels, "MON-EqB4"),
    (skew_without_alpha, "MON-Eq28"),
    (skew_without_alpha, "MON-EqB4"),
    (norm_of_the_first_block, "MON-Eq28"),
    (two_passes_for_one, "MON-Eq28"),
    (no_square, "MON-Sec4.2-kernel"),
    (whole_spectrum, "MON-Sec4.2-cost"),
    (refactored_every_time, "MON-Sec4.2-cost"),
    (border_of_one, "MON-Sec4.2-padding"),
    (scale_1_over_s, "MON-Eq27"),
    (kernels_not_normalised, "MON-AppD.2-weightnorm"),
    (tiers_not_normalised, "MON-AppD.2-weightnorm"),
    (tiers_transposed, "MON-Sec4.3-tiers"),
    (tiers_transposed, "MON-EqC2"),
    (tiers_transposed, "MON-EqC8"),
    (resolvent_of_step_one, "MON-EqC6"),
    (resolvent_not_transposed, "MON-EqC6"),
    (printed_factor, "MON-PropC1"),
    (aliases_averaged, "MON-PropC1"),
    (shuffle_transposed, "MON-PropC1"),
    (shuffle_transposed, "MON-EqC12"),
    (shuffle_transposed, "MON-EqC23"),
    (shuffle_transposed, "MON-EqC24"),
    (other_pixels, "MON-EqC13"),
    (transpose_without_zeros, "MON-EqC13"),
    (printed_mask, "MON-EqC17"),
    (printed_folding, "MON-EqC19"),
    (smaller_windows, "MON-TabD1"),
    (sums_for_averages, "MON-AppD.1-readout"),
]


@pytest.mark.parametrize(("plant", "claim"), CONTROLS, ids=[f"{p.__name__}-{c}" for p, c in CONTROLS])
def test_a_planted_bug_is_noticed(plant, claim, monkeypatch):
    try:
        check_noticed(run, plant, claim, monkeypatch)
    finally:
        circulant.fourier.cache_clear()


def test_every_validation_of_images_has_a_control():
    checked = {claims.load()[claim].id for _, claim in CONTROLS}
    files = {"appendix_b", "appendix_c", "table_d1"}
    assert {c.id for c in claims.entries() if c.validation.partition(":")[0] in files} <= checked
