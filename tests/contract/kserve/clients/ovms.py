"""ovmsclient over HTTP, in a process of its own. Prints what it got as JSON.

ovms.py HOST:PORT
"""

import json
import sys
from typing import Any

import numpy as np
from ovmsclient import make_http_client
from ovmsclient.tfs_compat.base.errors import ModelServerError

X = np.array([[1, 2], [3, 4]], np.float32)
W = np.array([b"a", "bé".encode()])


def refusal(call: Any) -> str:
    try:
        call()
    except ModelServerError as error:
        return str(error)
    return ""


def main(address: str) -> None:
    client = make_http_client(url=address)
    found = client.predict(inputs={"x": X, "w": W}, model_name="two")
    got = {
        "status": client.get_model_status(model_name="two"),
        "metadata": client.get_model_metadata(model_name="two"),
        "out_x": found["out_x"].tolist(),
        "out_w": [item if isinstance(item, str) else item.decode() for item in found["out_w"]],
        "unknown model": refusal(lambda: client.predict({"x": X}, "nope")),
    }
    print(json.dumps(got))  # noqa: T201  # its output is read by the test


main(*sys.argv[1:])
