"""fastcs-eiger as a program of its own: `PORT VERSION` of a SIMPLON server; runs one series.

Prints one JSON object: what the client found and read back. Runs in fastcs-eiger's environment.
"""

import asyncio
import json
import sys

from fastcs.connections import IPConnectionSettings
from fastcs_eiger.controllers.eiger_controller import EigerController


async def take_series(port: int, version: str) -> dict[str, object]:
    eiger = EigerController(IPConnectionSettings("127.0.0.1", port), api_version=version)
    await eiger.initialise()
    eiger.post_initialise()
    found = {name: len(part.attributes) for name, part in eiger.sub_controllers.items()}
    for part in eiger.sub_controllers.values():
        for attribute in part.attributes.values():
            if attribute.has_io_ref():
                await attribute.bind_update_callback()()
    detector = eiger.sub_controllers["detector"]
    settings = {"nimages": 3, "ntrigger": 2, "trigger_mode": "ints", "photon_energy": 7000.0}
    for name, value in settings.items():
        await detector.attributes[name].put(value)
    await eiger.update()
    read = {name: detector.attributes[name].get() for name in (*settings, "threshold_energy")}
    await eiger.arm_when_ready()
    states = []
    for _ in range(2):
        await detector.trigger()
        await detector.attributes["state"].bind_update_callback()()
        states.append(detector.attributes["state"].get())
    await detector.disarm()
    await eiger.connection.close()
    return {"found": found, "read": read, "states": states}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(take_series(int(sys.argv[1]), sys.argv[2]))))
