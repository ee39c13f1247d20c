"""libertem-dectris as a program of its own: `send`, or `receive URI ROWS COLUMNS DTYPE OUT.npy`.

Run as a child process with a time limit, since its Rust threads can panic.
"""

import sys
import tempfile
from pathlib import Path

import libertem_dectris
import numpy as np


def send() -> None:
    """Print the endpoint, then send its mock series: 3 frames of 512 x 512, frame i constant i."""
    mock = libertem_dectris.DectrisSim.new_mocked(
        uri="tcp://127.0.0.1", num_frames=3, dwelltime=1000, random_port=True
    )
    print(mock.get_uri(), flush=True)
    mock.send_headers()
    mock.send_frames()
    mock.send_footer()


def receive(uri: str, rows: str, columns: str, dtype: str, out: str) -> None:
    """Print `ready`, receive one series and save its pixels."""
    shape = int(rows), int(columns)
    with tempfile.TemporaryDirectory() as folder:
        connection = libertem_dectris.DectrisConnection(
            uri=uri,
            frame_stack_size=4,
            handle_path=str(Path(folder) / "handle"),
            num_slots=20,
            bytes_per_frame=2 * shape[0] * shape[1] * np.dtype(dtype).itemsize,
            huge=False,
        )
        connection.start_passive(timeout=10.0)
        print("ready", flush=True)
        connection.wait_for_arm(timeout=20.0)
        camera = libertem_dectris.CamClient(connection.get_socket_path())
        stacks = []
        while (stack := connection.get_next_stack(max_size=8)) is not None:
            stacks.append(np.zeros((len(stack), *shape), dtype))
            camera.decode_range_into_buffer(stack, stacks[-1], 0, len(stack))
            camera.done(stack)
        np.save(out, np.concatenate(stacks))
        connection.close()


if __name__ == "__main__":
    {"send": send, "receive": receive}[sys.argv[1]](*sys.argv[2:])
