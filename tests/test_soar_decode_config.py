"""DecodeConfig: the options of decode as one object, checked (what is refused: test_soar_search.py)."""

import inspect
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest

from labkit.soar import decode
from labkit.soar.config import DecodeConfig


def test_decode_and_its_config_have_the_same_options_and_defaults():
    keywords = list(inspect.signature(decode).parameters.values())[2:]
    options = {spec.name: spec.default for spec in fields(DecodeConfig)}
    calls_back = {"stop", "watch"}  # functions: nothing that a trace could name
    assert {one.name for one in keywords} - calls_back == set(options)
    own = {"mask_id", "gen_length", *calls_back}  # None asks decode for the first two
    assert all(one.default == options[one.name] for one in keywords if one.name not in own)


def test_numpy_numbers_become_plain_ones():
    config = DecodeConfig(mask_id=np.int64(0), beam=np.int64(3), threshold=np.float32(0.5), record=np.True_)
    assert {type(config.mask_id), type(config.beam)} == {int}
    assert type(config.threshold) is float
    assert config.record is True


def test_what_has_no_effect_does_not_tell_two_configs_apart():
    assert DecodeConfig(mask_id=0, strategy="greedy", beam=4, seed=3).parameters["beam"] == 1
    assert DecodeConfig(mask_id=0, seed=3) == DecodeConfig(mask_id=0)
    assert DecodeConfig(mask_id=0, temperature=1.0, seed=3).seed == 3
    assert isinstance(DecodeConfig(mask_id=0, temperature=1.0).seed, int)


def test_a_config_stays_as_it_was_checked():
    with pytest.raises(FrozenInstanceError):
        DecodeConfig(mask_id=0).beam = 9
    with pytest.raises(ValueError, match="steps must be None for strategy 'soar'.*; got 4"):
        DecodeConfig(mask_id=0, steps=4)
