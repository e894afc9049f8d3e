"""Bodies of texts that nothing is written behind arrive in the vocabulary."""

from rayserve_platform.core.messages import Chat, Detokenize, Embed, Tokenize, Turn
from rayserve_platform.protocols.openai.schema import DetokenizeBody, EmbeddingBody, TokenizeBody
from rayserve_platform.protocols.openai.translate import to_detokenize, to_embed, to_tokenize
from tests.unit.protocols.openai.test_translate import MESSAGES, refused


def test_embedding_options_arrive():
    sent = {"input": "a", "dimensions": 4, "truncate_prompt_tokens": 3}
    body = EmbeddingBody.model_validate(sent)
    assert to_embed(body, model="m", request_id="r") == Embed(
        model="m", inputs=("a",), truncate_tokens=3, dimensions=4, request_id="r"
    )


def test_tokenize_takes_either_a_prompt_or_messages():
    def tokenize(**fields) -> Tokenize:
        return to_tokenize(TokenizeBody.model_validate(fields), model="m", request_id="r")

    plain = tokenize(prompt="a", add_special_tokens=False)
    assert plain == Tokenize(model="m", prompt="a", add_special_tokens=False, request_id="r")
    talk = tokenize(messages=MESSAGES, add_generation_prompt=False, continue_final_message=True)
    assert talk.prompt == Chat(
        turns=(Turn(role="user", content="hi"),),
        add_generation_prompt=False,
        continue_final_message=True,
    )
    for fields in ({}, {"prompt": "a", "messages": MESSAGES}):
        assert "Exactly one of" in refused(tokenize, **fields).message


def test_detokenize_passes_the_ids():
    body = DetokenizeBody.model_validate({"tokens": [3, 1]})
    found = to_detokenize(body, model="m", request_id="r")
    assert found == Detokenize(model="m", ids=(3, 1), request_id="r")
