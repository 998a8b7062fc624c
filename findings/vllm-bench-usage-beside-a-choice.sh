#!/bin/sh
# `vllm bench serve` (vLLM 0.32, --backend openai-chat) reads how many tokens an answer has only from a chunk
# without choices. A server that says it beside the last choice, as `transformers serve` 5.23 does, has
# its text tokenized once more by the tokenizer that was named: tokens/s and TPOT are then of other numbers,
# 50 % too many tokens/s for weights at random. AIPerf 0.13 and the load test of this project read both.
#
# Seen on 2026-12-01, of a server that answers with four chunks " word" and says that these are 400 tokens:
# "Total generated tokens: 36" of three answers.
#
# Needs vLLM: VLLM=/path/to/bin/vllm, else it is taken from PATH; and a folder with a tokenizer: TOKENIZER,
# else the small one of this checkout.
set -eu

here=$(CDPATH='' cd -P -- "$(dirname -- "$0")" && pwd -P)
vllm=$(command -v "${VLLM:-vllm}") || { echo "vLLM is not here: VLLM=/path/to/bin/vllm" >&2; exit 2; }
tokenizer=${TOKENIZER:-$here/../workloads/finetune/model/tiny}
scratch=$(mktemp -d)
trap 'kill "$server" 2>/dev/null; rm -rf "$scratch"' EXIT
cd "$scratch"

cat >server.py <<'PYTHON'
import json, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.say({"role": "assistant", "content": ""})
        for _ in range(4):
            time.sleep(0.1)
            self.say({"content": " word"})
        self.say({}, "length", usage={"prompt_tokens": 1, "completion_tokens": 400})
        self.wfile.write(b"data: [DONE]\n\n")

    def say(self, delta, reason=None, **more):
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        self.wfile.write(b"data: " + json.dumps({"choices": [choice], **more}).encode() + b"\n\n")
        self.wfile.flush()


server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
print(server.server_port, flush=True)
server.serve_forever()
PYTHON
python3 server.py >port 2>log &
server=$!
while [ ! -s port ]; do sleep 0.1; done

"$vllm" bench serve --backend openai-chat --base-url "http://127.0.0.1:$(cat port)" \
    --endpoint /v1/chat/completions --model m --tokenizer "$tokenizer" --dataset-name random \
    --random-input-len 8 --random-output-len 4 --num-prompts 3 --max-concurrency 1 \
    --ready-check-timeout-sec 0 --disable-tqdm >out 2>err || { tail -5 err >&2; exit 2; }
grep "Total generated tokens" out
tokens=$(sed -n 's/^Total generated tokens: *//p' out)
if [ "$tokens" -ne 1200 ]; then
    echo "the server said that its 3 answers have 1200 tokens"
else
    echo "usage beside a choice is read now"
    exit 1
fi
