#!/bin/sh
# `vllm bench serve` (vLLM 0.32, --backend openai-chat) takes any chunk with a choice for a token: the one
# that names the role, whose content is empty, ends TTFT, and the one that brings finish_reason alone ends
# the request. Against a server that sends the role at once, as OpenAI's own API and several others do, TTFT
# is the time to the headers. AIPerf 0.13 and the load test of this project wait for the first content.
#
# Seen on 2026-12-01, of a server that sends the role at once, the first of 4 tokens after 1 s, the others
# after 0.1 s each, and the reason of the end 0.5 s after the last: "Mean TTFT (ms): 6.72".
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
        for wait_s in (1.0, 0.1, 0.1, 0.1):
            time.sleep(wait_s)
            self.say({"content": " word"})
        time.sleep(0.5)
        self.say({}, "length")
        self.wfile.write(b"data: [DONE]\n\n")

    def say(self, delta, reason=None):
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        self.wfile.write(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")
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
grep "Mean TTFT" out
ttft_ms=$(sed -n 's/^Mean TTFT (ms): *//p' out)
if python3 -c 'import sys; sys.exit(float(sys.argv[1]) >= 500)' "$ttft_ms"; then
    echo "the role alone ended TTFT; the first token came after 1000 ms"
else
    echo "TTFT waits for the first token now"
    exit 1
fi
