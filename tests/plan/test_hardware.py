from __future__ import annotations

import pytest

from weft.core.errors import ConfigError, InputFileError
from weft.plan.hardware.ascend import read_platform_file
from weft.plan.hardware.catalogue import device, devices
from weft.plan.hardware.cluster import Cluster, Span
from weft.plan.hardware.links import link, links

PLATFORM = """
[version]
SoC_version=Ascend910B1
[SoCInfo]
ai_core_cnt=24
cube_core_cnt=24
l2_size=201326592
memory_size=68719476736
[AICoreSpec]
cube_freq=1850
cube_m_size=16
cube_n_size=16
cube_k_size=16
"""


@pytest.mark.parametrize("name", sorted(devices()))
def test_every_device_is_complete_and_every_field_has_a_source(name):
    spec = device(name)
    assert min(spec.memory_bytes, spec.memory_bandwidth, spec.power_w) > 0
    assert spec.matmul_flops["bfloat16"] > 1e13
    assert set(spec.matmul_share) <= set(spec.matmul_flops)
    for share in (*spec.matmul_share.values(), spec.attention_share, spec.memory_share):
        assert 0.0 < share <= 1.0
    assert link(spec.scale_up).rate > 0
    assert link(spec.scale_out).rate > 0
    told = {"matmul_flops", "memory_bytes", "memory_bandwidth", "power_w", "matmul_share"}
    assert told <= set(spec.sources)
    assert all(spec.sources.values())


@pytest.mark.parametrize(
    ("name", "peak", "ridge"),
    [("H100", 989.4e12, 295.34328358208955), ("A100", 312e12, 153.01618440411966),
     ("H200", 989.4e12, 206.125)],
)  # fmt: skip
def test_peaks_and_ridge_points_of_data_sheets(name, peak, ridge):
    spec = device(name)
    assert spec.matmul_flops["bfloat16"] == peak
    assert peak / spec.memory_bandwidth == pytest.approx(ridge, rel=1e-3)


def test_peaks_the_courses_quote():
    assert device("H20").matmul_flops["bfloat16"] == 148e12
    assert device("H800").matmul_flops["bfloat16"] == pytest.approx(989e12, rel=1e-3)
    assert device("Ascend-910B2").matmul_flops["bfloat16"] == pytest.approx(354e12, rel=1e-3)


def test_names_are_found_without_regard_to_case_and_dashes():
    assert device("h100_sxm_80gb") is device("H100-SXM-80GB") is device(" H100 ")


def test_an_unknown_device_lists_the_nearest():
    with pytest.raises(ConfigError, match=r"(?s)no device is called 'H10'.*H100-SXM-80GB"):
        device("H10")


def test_a_relative_inherits_what_it_does_not_say():
    assert device("A100-40GB").matmul_flops == device("A100").matmul_flops
    assert device("A100-40GB").memory_bytes == 40_000_000_000


def test_links_reach_no_more_than_their_peak():
    for entry in links().values():
        assert entry.rate <= entry.bandwidth
        assert entry.source
        assert entry.seconds(1e9) >= 1e9 / entry.rate
        assert entry.seconds(0) == 0.0


def test_short_messages_take_the_low_latency_way():
    wire = link("nvlink4")
    assert wire.seconds(8) < wire.start_s
    assert wire.seconds(1e9) == pytest.approx(wire.start_s + 1e9 / wire.rate)


@pytest.mark.parametrize(
    ("size", "stride", "span"),
    [(8, 1, Span(8, 1)), (8, 8, Span(1, 8)), (64, 1, Span(8, 8)), (16, 2, Span(4, 4)),
     (6, 2, Span(3, 2)), (1, 1, Span(1, 1))],
)  # fmt: skip
def test_groups_lie_on_nodes(size, stride, span):
    assert Cluster.parse("H100x64").span(size, stride) == span
    assert span.size == size


def test_a_rack_holds_seventy_two():
    assert Cluster.parse("GB200 x 144").span(64) == Span(64, 1)


@pytest.mark.parametrize("text", ["H100x512", "H100 x 512", "h100×512"])
def test_clusters_are_read(text):
    cluster = Cluster.parse(text)
    assert (cluster.device.name, cluster.num_devices) == ("H100-SXM-80GB", 512)


def test_a_cluster_needs_devices():
    with pytest.raises(ConfigError, match="at least one"):
        Cluster.of("H100", 0)


def test_a_platform_file_gives_the_peak_of_its_cubes(tmp_path):
    path = tmp_path / "Ascend910B1.ini"
    path.write_text(PLATFORM)
    platform = read_platform_file(path)
    assert platform.peak_flops == 24 * 1850e6 * 16**3 * 2
    assert platform.peak_flops == pytest.approx(363.7e12, rel=1e-3)
    assert platform.l2_bytes == 201_326_592
    spec = platform.hardware()
    assert spec.name == "Ascend910B1"
    assert spec.memory_bytes == 64 * 2**30
    assert spec.sources["memory_bandwidth"] == "not in the platform file"


@pytest.mark.parametrize(
    ("text", "said"),
    [(PLATFORM.replace("cube_freq=1850", ""), "cube_freq"),
     (PLATFORM.replace("=1850", "=fast"), "'fast'"), ("no ini", "no platform file")],
)  # fmt: skip
def test_a_broken_platform_file_says_what_is_wrong(tmp_path, text, said):
    path = tmp_path / "broken.ini"
    path.write_text(text)
    with pytest.raises(InputFileError, match=said):
        read_platform_file(path)
    with pytest.raises(InputFileError, match="cannot be read"):
        read_platform_file(tmp_path / "absent.ini")
