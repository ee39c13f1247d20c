# The hits of a running daemon without hitfinder-stream: python ten_lines.py tcp://127.0.0.1:5557
import sys

import msgpack
import zmq

socket = zmq.Context().socket(zmq.SUB)
socket.subscribe("result.hit")
socket.connect(sys.argv[1])
while True:
    hit = msgpack.unpackb(socket.recv_multipart()[1])
    fs, ss = (memoryview(hit["peaks"][name]).cast("f").tolist() for name in ("fs", "ss"))
    print(hit["series"], hit["frame"], hit["p_hit"], list(zip(fs, ss, strict=True)), flush=True)
