"""What PyTorch offers as an accelerator is offered, with its name and memory; CPU otherwise."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from demoe.cli import main
from demoe.errors import DeviceError
from demoe.model import devices
from demoe.model.devices import (
    choose_device,
    free_memory,
    list_devices,
    total_memory,
    why_processor,
)
from demoe.plan.sizing import choose_tile
from demoe.recipe import Recipe

GB = 10**9


@dataclass
class Driver:
    """Stands in for ``torch.cuda``, ``torch.xpu`` or ``torch.mps`` of a machine with devices."""

    names: tuple[str, ...]
    is_mute: bool = False

    def get_device_name(self, device: torch.device) -> str:
        self._speak()
        return self.names[device.index]

    def get_device_properties(self, device: torch.device) -> SimpleNamespace:
        self._speak()
        return SimpleNamespace(total_memory=24 * GB)

    def mem_get_info(self, device: torch.device) -> tuple[int, int]:
        self._speak()
        return 20 * GB, 24 * GB

    def recommended_max_memory(self) -> int:
        return 16 * GB

    def driver_allocated_memory(self) -> int:
        return 4 * GB

    def _speak(self) -> None:
        if self.is_mute:
            raise RuntimeError("the driver does not tell")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Let PyTorch say that this machine has accelerators of a kind."""

    def build(kind: str, *names: str, is_mute: bool = False, hip: str | None = None) -> None:
        there = torch.device(kind) if kind else None
        accelerator = SimpleNamespace(
            current_accelerator=lambda: there,
            is_available=lambda: bool(names),
            device_count=lambda: len(names),
        )
        monkeypatch.setattr(torch, "accelerator", accelerator)
        monkeypatch.setattr(torch.version, "hip", hip)
        if kind:
            monkeypatch.setattr(torch, kind, Driver(names, is_mute))

    return build


def test_graphics_cards_are_listed_by_name_with_their_memory(machine) -> None:
    machine("cuda", "NVIDIA A", "NVIDIA B")
    first, second, cpu = list_devices()
    assert (first.name, second.name, cpu.name) == ("cuda:0", "cuda:1", "cpu")
    assert first.label == "NVIDIA A (CUDA), 20 of 24 GB free, not tried"
    assert second.words == "NVIDIA B"
    assert cpu.label.startswith("Processor, ")
    assert cpu.is_tried
    assert "not tried" not in cpu.label
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert why_processor() == ""


def test_a_kind_that_was_tried_is_not_labelled(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine("cuda", "NVIDIA A")
    monkeypatch.setattr(devices, "TRIED", ("cpu", "cuda"))
    assert list_devices()[0].label == "NVIDIA A (CUDA), 20 of 24 GB free"


def test_rocm_is_called_so(machine) -> None:
    machine("cuda", "AMD Instinct", hip="6.2")
    assert list_devices()[0].kind == "ROCm"
    assert choose_device("auto") == torch.device("cuda")


@pytest.mark.parametrize(
    ("kind", "name", "label"),
    [
        ("mps", "", "Apple MPS, 12 of 16 GB free, not tried"),
        ("xpu", "Intel Arc", "Intel Arc (Intel XPU), 20 of 24 GB free, not tried"),
    ],
)
def test_what_was_not_tried_is_offered_but_taken_by_name_only(machine, kind, name, label) -> None:
    machine(kind, name)
    found = list_devices()[0]
    assert (found.name, found.label) == (f"{kind}:0", label)
    assert choose_device(Recipe(device=kind).device) == torch.device(kind)
    assert choose_device("auto") == torch.device("cpu")
    assert f"choose the device {kind}" in why_processor()
    with pytest.raises(DeviceError, match=rf"{kind}:3 is not available: PyTorch sees 1 "):
        choose_device(f"{kind}:3")
    with pytest.raises(DeviceError, match=r"cuda is not available"):
        choose_device("cuda")


def test_tiles_suit_a_device_that_nobody_tried(machine) -> None:
    machine("mps", "")
    memory = total_memory(torch.device("mps"))
    assert memory == 16 * GB
    assert free_memory(torch.device("mps")) == 12 * GB
    assert 128 <= choose_tile("mps", memory, 4000.0, 64, 64) <= 1024


def test_a_driver_that_tells_nothing_hides_no_device(machine) -> None:
    machine("xpu", "Intel Arc", is_mute=True)
    found = list_devices()[0]
    assert (found.words, found.free) == ("Intel XPU", None)
    assert found.total > 0


@pytest.mark.parametrize("kind", ["", "cuda", "mtia"])
def test_without_one_the_processor_computes_and_a_sentence_says_so(machine, kind) -> None:
    machine(kind)
    assert [device.name for device in list_devices()] == ["cpu"]
    assert choose_device("auto") == torch.device("cpu")
    assert why_processor().endswith("so the processor computes.")
    with pytest.raises(DeviceError, match="PyTorch sees no accelerator here; use cpu or auto"):
        choose_device("xpu")


def test_a_pytorch_without_the_general_interface_still_knows_cuda(monkeypatch) -> None:
    monkeypatch.delattr(torch, "accelerator")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")


def test_info_lists_devices_without_an_image(machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine("xpu", "Intel Arc")
    assert main(["info"]) == 0
    first, second, last = capsys.readouterr().out.splitlines()
    assert first == "xpu:0     Intel Arc (Intel XPU), 20 of 24 GB free, not tried"
    assert second.startswith("cpu       Processor, ")
    assert "choose the device xpu" in last
    assert main(["info", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["devices"]
    assert [device["name"] for device in listed] == ["xpu:0", "cpu"]
    assert listed[0]["is_tried"] is False
