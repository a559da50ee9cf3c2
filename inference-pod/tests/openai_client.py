"""What users of OpenAI's own client do, unchanged, against the bundled server: base URL and model are the arguments."""

import json
import sys
from typing import Literal

import openai
from pydantic import BaseModel

URL, MODEL = sys.argv[1], sys.argv[2]
client = openai.OpenAI(base_url=URL + "/v1", api_key="none", max_retries=0, timeout=60)
HELLO = [{"role": "user", "content": "the error and the end"}]
GO_ON = {"ignore_eos": True}


class Weather(BaseModel):
    city: Literal["Bonn", "Rome"]
    sunny: bool


TOOL = openai.pydantic_function_tool(Weather, name="weather")


def chat(**fields):
    return client.chat.completions.create(**{"model": MODEL, "messages": HELLO, "max_tokens": 12, **fields})


def whole():
    answer = chat(seed=1, extra_body=GO_ON)
    choice = answer.choices[0]
    assert choice.message.role == "assistant" and choice.message.content, choice
    assert choice.finish_reason == "length", choice
    assert answer.usage.completion_tokens == 12 and answer.usage.prompt_tokens > 0, answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12
    assert chat(seed=1, extra_body=GO_ON).choices[0].message.content == choice.message.content


def streaming():
    chunks = list(chat(seed=1, stream=True, stream_options={"include_usage": True}, extra_body=GO_ON))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == chat(seed=1, extra_body=GO_ON).choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 12, chunks[-1]
    assert all(chunk.usage is None for chunk in chunks[:-1])


def several_choices():
    answer = chat(n=3, seed=5, temperature=2, extra_body=GO_ON)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) == 3
    assert answer.usage.completion_tokens == 36, answer.usage
    stream = list(chat(n=3, seed=5, temperature=2, stream=True, extra_body=GO_ON))
    for choice in answer.choices:
        own = [chunk.choices[0] for chunk in stream if chunk.choices[0].index == choice.index]
        assert "".join(part.delta.content or "" for part in own) == choice.message.content


def a_cancelled_sibling():
    ends = {}
    stream = chat(n=2, max_tokens=200, stream=True, extra_body=GO_ON)
    for chunk in stream:
        if "told" not in ends:
            ends["told"] = client.delete(f"/requests/{chunk.id}/choices/1", cast_to=object)
        if chunk.choices[0].finish_reason:
            ends[chunk.choices[0].index] = chunk.choices[0].finish_reason
    assert ends[0] == "length" and ends[1] == "cancelled", ends


def logprobs():
    answer = chat(logprobs=True, top_logprobs=3, temperature=0, extra_body={**GO_ON, "confidence": True})
    tokens = answer.choices[0].logprobs.content
    assert len(tokens) == 12 and all(len(token.top_logprobs) == 3 for token in tokens)
    assert all(token.logprob == token.top_logprobs[0].logprob <= 0 for token in tokens), tokens[0]
    assert bytes(byte for token in tokens for byte in token.bytes).decode(errors="replace")
    confidence = answer.choices[0].model_extra["confidence"]
    assert confidence["tokens"] == 12 and confidence["min_logprob"] <= confidence["mean_logprob"] <= 0, confidence
    stream = chat(logprobs=True, stream=True, extra_body=GO_ON)
    told = [token for chunk in stream if chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.content]
    assert len(told) == 12


def sampling():
    [the] = client.post("/../tokenize", body={"model": MODEL, "prompt": " the"}, cast_to=object)["tokens"]
    assert chat(temperature=0, logit_bias={str(the): 100}).choices[0].message.content == " the" * 12
    penalties = {"frequency_penalty": 2, "presence_penalty": 2}
    assert chat(temperature=0, logit_bias={str(the): 5}, **penalties, max_tokens=40).choices[0].message.content
    assert chat(stop=["e", "t"], max_tokens=40).choices[0].finish_reason in ("stop", "length")


def json_schema():
    answer = chat(response_format={"type": "json_object"}, max_tokens=40)
    assert answer.choices[0].message.content.startswith("{")
    parsed = client.chat.completions.parse(model=MODEL, messages=HELLO, response_format=Weather, max_tokens=80)
    assert parsed.choices[0].finish_reason == "stop"
    assert isinstance(parsed.choices[0].message.parsed, Weather)
    said = chat(extra_body={"guided_choice": ["yes", "no"]}).choices[0].message.content
    assert said in ("yes", "no"), said


def tools():
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        answer = chat(tools=[TOOL], tool_choice=choice, max_tokens=80).choices[0]
        [call] = answer.message.tool_calls
        assert answer.finish_reason == "tool_calls" and call.function.name == "weather", answer
        Weather.model_validate_json(call.function.arguments)
    result = [*HELLO, answer.message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "22 degrees"}]
    assert chat(messages=result, tools=[TOOL], tool_choice="none").choices[0].message.tool_calls is None
    arguments = ""
    for chunk in chat(tools=[TOOL], tool_choice="required", max_tokens=80, stream=True):
        for part in chunk.choices[0].delta.tool_calls or []:
            arguments += part.function.arguments
        finish = chunk.choices[0].finish_reason
    Weather.model_validate_json(arguments)
    assert finish == "tool_calls"


def completions():
    answer = client.completions.create(model=MODEL, prompt="the", max_tokens=5, logprobs=2, n=2, extra_body=GO_ON)
    for choice in answer.choices:
        assert len(choice.logprobs.tokens) == len(choice.logprobs.token_logprobs) == len(choice.logprobs.text_offset) == 5
        assert choice.finish_reason == "length"
    assert client.completions.create(model=MODEL, prompt="the", max_tokens=1, echo=True).choices[0].text.startswith("the")
    stream = client.completions.create(model=MODEL, prompt=[5, 6, 7], max_tokens=5, stream=True, extra_body=GO_ON)
    assert list(stream)[-1].choices[0].finish_reason == "length"


def embeddings():
    answer = client.embeddings.create(model=MODEL, input=["the end", "an error"])
    for item in answer.data:
        assert abs(sum(number * number for number in item.embedding) - 1) < 1e-4
    floats = client.embeddings.create(model=MODEL, input="the end", encoding_format="float").data[0].embedding
    assert all(abs(a - b) < 1e-4 for a, b in zip(floats, answer.data[0].embedding, strict=True))


def models():
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL


def errors():
    def refused(kind, **fields):
        try:
            chat(**fields)
        except kind as error:
            return error
        raise AssertionError(f"{fields} was taken")

    assert refused(openai.NotFoundError, model="other").code == "model_not_found"
    assert refused(openai.BadRequestError, temperature=9).param == "temperature"
    assert refused(openai.BadRequestError, messages=[]).param == "messages"
    assert refused(openai.BadRequestError, n=99, stream=True).param == "n"
    assert refused(openai.BadRequestError, max_tokens=9999).code == "context_length_exceeded"
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
    assert refused(openai.BadRequestError, response_format=schema).param == "response_format.json_schema.schema"


for check in (whole, streaming, several_choices, a_cancelled_sibling, logprobs, sampling, json_schema, tools, completions,
              embeddings, models, errors):
    check()
    print(f"ok {check.__name__}")
print(f"openai {openai.__version__}: all calls pass")
