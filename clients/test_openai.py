"""OpenAI's own client against the service: `python -m unittest` in this directory."""

import unittest

import openai

from served import Served

MODEL = "demo+facts"
PROMPT = "The keeper of Skarn light is"


class Client(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.served = cls.enterClassContext(Served())
        cls.client = cls.enterClassContext(openai.OpenAI(base_url=f"{cls.served.url}/v1", api_key=cls.served.key, max_retries=0))

    def test_models_are_listed(self):
        self.assertEqual([model.id for model in self.client.models.list()], ["demo", MODEL])
        self.assertEqual(self.client.models.retrieve(MODEL).id, MODEL)

    def test_completions_and_chats_are_the_same_whole_or_as_a_stream(self):
        whole = self.client.completions.create(model=MODEL, prompt=PROMPT, temperature=0)
        text = whole.choices[0].text
        self.assertTrue(text)
        self.assertEqual(whole.usage.total_tokens, whole.usage.prompt_tokens + whole.usage.completion_tokens)
        self.assertRegex(whole.poa["request"], "^[0-9a-f]{64}$")
        pieces = self.client.completions.create(model=MODEL, prompt=PROMPT, stream=True)
        self.assertEqual("".join(piece.choices[0].text for piece in pieces), text)
        messages = [{"role": "user", "content": PROMPT}]
        chat = self.client.chat.completions.create(model=MODEL, messages=messages, max_tokens=8)
        self.assertEqual((chat.choices[0].message.content, chat.choices[0].finish_reason), (text, "stop"))
        stream = self.client.chat.completions.create(
            model=MODEL, messages=messages, max_tokens=8, stream=True, stream_options={"include_usage": True}
        )
        streamed, usage = "", None
        for chunk in stream:
            streamed += (chunk.choices[0].delta.content or "") if chunk.choices else ""
            usage = chunk.usage or usage
        self.assertEqual((streamed, usage.completion_tokens), (text, chat.usage.completion_tokens))

    def test_what_cannot_be_honoured_is_refused_by_name(self):
        for param, value in [("temperature", 0.7), ("logprobs", 3), ("n", 2)]:
            with self.assertRaises(openai.BadRequestError) as refused:
                self.client.completions.create(model=MODEL, prompt=PROMPT, **{param: value})
            self.assertEqual(refused.exception.param, param)
        with self.assertRaises(openai.BadRequestError) as refused:
            self.client.completions.create(model=MODEL, prompt="light " * 40)
        self.assertEqual(refused.exception.code, "context_length_exceeded")
        with self.assertRaises(openai.NotFoundError):
            self.client.completions.create(model="nobody", prompt=PROMPT)
        with self.assertRaises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{self.served.url}/v1", api_key="poa_wrong", max_retries=0).models.list()

    def test_a_call_with_an_idempotency_key_is_done_once(self):
        def ask():
            return self.client.completions.create(model=MODEL, prompt=PROMPT, extra_headers={"idempotency-key": "one"})

        self.assertEqual(ask().poa["request"], ask().poa["request"])


if __name__ == "__main__":
    unittest.main()
