#!/bin/sh
# llama.cpp's own server until standard input ends: llamacpp_server.sh BINARY MODEL THREADS SLOTS
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$1" --model "$2" --threads "$3" --threads-batch "$3" --parallel "$4" --ctx-size $((8192 * $4)) \
  --host 127.0.0.1 --port "$port" --jinja >/dev/null 2>&1 &
server=$!
trap 'kill $server' EXIT
until python3 -c "import urllib.request as r; r.urlopen('http://127.0.0.1:$port/health', timeout=1)" 2>/dev/null; do
  kill -0 $server 2>/dev/null || exit 1
  sleep 0.2
done
echo "http://127.0.0.1:$port"
cat >/dev/null
