"""An embedded provider: a real HTTP server on loopback that speaks batch dialects, with switchable faults and a ledger.

It is not a model: its answers come from a small lexicon and the requested schema. It shares no code with the
providers' clients, and imports nothing from outside its folder.
"""

from blocks.emulator.launch import RunningEmulator, running_emulator
from blocks.emulator.options import EmulatorOptions

__all__ = ["EmulatorOptions", "RunningEmulator", "running_emulator"]
