import dataclasses
import inspect
import pickle

import numpy as np
import pytest

from rayserve_platform.core import cards, messages, scores, tensors
from rayserve_platform.core.cards import ModelCard, Task
from rayserve_platform.core.messages import (
    Chat,
    Chunk,
    Details,
    Embed,
    Embeddings,
    Generate,
    PromptInfo,
    Sampling,
    Stop,
    Stopping,
    StopReason,
    Token,
    Turn,
)

CLASSES = [
    item
    for module in (cards, messages, scores, tensors)
    for _, item in inspect.getmembers(module, inspect.isclass)
    if dataclasses.is_dataclass(item) and item.__module__ == module.__name__
]
NAMES = [item.__name__ for item in CLASSES]


def test_the_vocabulary_is_found_by_these_tests():
    assert {"Generate", "Embed", "Infer", "Tokenize", "Score", "Chunk", "ModelCard"} <= set(NAMES)


@pytest.mark.parametrize("kind", CLASSES, ids=NAMES)
def test_every_message_is_frozen_slotted_and_keyword_only(kind):
    assert kind.__dataclass_params__.frozen
    assert "__slots__" in vars(kind)
    assert all(field.kw_only for field in dataclasses.fields(kind))


def test_a_request_cannot_be_changed_but_replaced():
    request = Generate(model="m", prompt="hi")
    with pytest.raises(dataclasses.FrozenInstanceError):
        request.model = "other"  # type: ignore[misc]
    assert dataclasses.replace(request, n=2).n == 2
    assert request.n == 1


def test_a_plain_request_leaves_every_choice_to_the_model():
    request = Generate(model="m", prompt="hi")
    assert all(value is None for value in dataclasses.asdict(request.sampling).values())
    assert request.stopping == Stopping(
        max_new_tokens=None, min_new_tokens=0, stop_sequences=(), time_limit_s=None
    )
    assert request.details == Details(generated_tokens=False, logprobs=False, top_n_tokens=0)
    assert (request.n, request.stream, request.guided, request.adapter) == (1, False, None, None)
    assert request.add_special_tokens
    assert request.skip_special_tokens


def test_no_two_requests_share_a_mutable_default():
    one, two = Chat(turns=()), Chat(turns=())
    assert one.template_kwargs is not two.template_kwargs


def test_what_crosses_a_process_boundary_survives_pickling():
    chat = Chat(turns=(Turn(role="user", content="hé"),), template_kwargs={"a": [1]})
    token = Token(id=1, text="a", logprob=-0.5, rank=1, top=(Token(id=2, text="b"),))
    values = [
        Generate(model="m", prompt=chat, sampling=Sampling(seed=3, logit_bias={5: 1.0})),
        Embed(model="m", inputs=("a", (1, 2))),
        Chunk(
            text="a",
            tokens=(token,),
            prompt=PromptInfo(token_count=1),
            stop=Stop(reason=StopReason.EOS, token_id=0),
        ),
        ModelCard(id="m", root="/m", runtime="fake", tasks=frozenset({Task.EMBED})),
    ]
    assert pickle.loads(pickle.dumps(values)) == values
    vectors = Embeddings(vectors=np.eye(2, dtype=np.float32), token_counts=(1, 2))
    again = pickle.loads(pickle.dumps(vectors))
    assert again.token_counts == (1, 2)
    np.testing.assert_array_equal(again.vectors, vectors.vectors)
