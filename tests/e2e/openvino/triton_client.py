"""Asks for an embedding with tritonclient, over HTTP and gRPC: HTTP-ADDRESS GRPC-ADDRESS TOKEN…"""

import json
import sys

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http

MODEL, OUTPUT = "all-minilm-l6-v2", "sentence_embedding"


def embedding(library, address, ids):
    client = library.InferenceServerClient(address)
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    inputs = []
    for name, data in (("input_ids", ids), ("attention_mask", np.ones_like(ids))):
        inputs.append(library.InferInput(name, list(data.shape), "INT64"))
        inputs[-1].set_data_from_numpy(data)
    answer = client.infer(MODEL, inputs, outputs=[library.InferRequestedOutput(OUTPUT)])
    client.close()
    return answer.as_numpy(OUTPUT)[0].tolist()


def main():
    http_address, grpc_address, *tokens = sys.argv[1:]
    ids = np.array([[int(token) for token in tokens]])
    answers = {
        "http": embedding(over_http, http_address, ids),
        "grpc": embedding(over_grpc, grpc_address, ids),
    }
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
