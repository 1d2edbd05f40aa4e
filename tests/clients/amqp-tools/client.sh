#!/bin/sh
# The cases of tests/clients/README.md, as far as the command line tools of rabbitmq-c do them: each command is a
# connection of its own.
set -eu

command -v amqp-publish >/dev/null || {
    echo "amqp-publish is not there; \`make deps\` installs what the tests need" >&2
    exit 1
}

case=$1
address="--server=$2 --port=$3 --username=guest"
vhost=$4
password=$5
# Seconds.
heartbeat=2
heartbeats_for=10

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Runs a tool: the command, then its own options.
tool() {
    name=$1
    shift
    # shellcheck disable=SC2086 # these are words
    "$name" $address --vhost="$vhost" --password="$password" "$@"
}

report() { printf '{"step": "%s", %s}\n' "$1" "$2"; }
skip() { report "$1" "\"skipped\": \"$2\""; }

# Octet i of the large body is i modulo 251.
large() {
    i=0
    pattern=
    while [ $i -lt 251 ]; do
        pattern="$pattern\\$(printf %03o $i)"
        i=$((i + 1))
    done
    # shellcheck disable=SC2059 # the octets are the format
    while printf "$pattern"; do :; done 2>/dev/null | head -c 10485760
}

messages() {
    i=0
    while [ $i -lt 1000 ]; do
        echo "message $i"
        i=$((i + 1))
    done
}

publish() {
    messages | tool amqp-publish --routing-key=durable --persistent --line-buffered
    report publish '"confirmed": null, "nacked": null,
        "note": "The tool publishes without confirms, with one key and the same headers for all messages."' | join
}

join() { tr -d '\n' | sed 's/  */ /g' && echo; }

consume() {
    # The command gets one message each on its standard input.
    tool amqp-consume --queue=durable --prefetch-count=50 --count=1000 cat >"$folder/received"
    messages >"$folder/sent"
    in_order=false
    cmp -s "$folder/sent" "$folder/received" && in_order=true
    left=0
    tool amqp-get --queue=durable >/dev/null && left=1
    report consume "\"received\": $(wc -l <"$folder/received"), \"in_order\": $in_order, \"redelivered\": null,
        \"left\": $left, \"note\": \"The tool does not tell whether a message was redelivered.\"" | join
}

get() {
    tool amqp-publish --routing-key="$1" --body=got
    body=$(tool amqp-get --queue="$1")
    # It ends with 2 when the queue is empty.
    status=0
    tool amqp-get --queue="$1" >/dev/null || status=$?
    empty=false
    [ $status = 2 ] && empty=true
    report get "\"body\": \"$body\", \"count\": null, \"empty\": $empty,
        \"note\": \"The tool does not tell how many messages are left.\"" | join
}

job() {
    report connect '"product": null, "note": "The tools do not tell the properties of the server."'
    durable=$(tool amqp-declare-queue --queue=durable --durable)
    generated=$(tool amqp-declare-queue --queue=)
    case $generated in amq.gen-*) is_generated=true ;; *) is_generated=false ;; esac
    report declare "\"durable\": \"$durable\", \"generated\": $is_generated, \"exclusive\": null, \"locked\": null,
        \"note\": \"Each command is a connection of its own, so no queue of one can be exclusive for the next.\"" | join
    publish
    consume
    get "$generated"
    skip return "The tool does not set the mandatory flag."
    tool amqp-declare-queue --queue=large >/dev/null
    large | tool amqp-publish --routing-key=large
    tool amqp-consume --queue=large --count=1 cat >"$folder/large"
    report large "\"size\": $(wc -c <"$folder/large"), \"sha256\": \"$(sha256sum <"$folder/large" | cut -d' ' -f1)\""
    tool amqp-delete-queue --queue=durable >/dev/null
    tool amqp-delete-queue --queue=large >/dev/null
    report close '"clean": true'
}

refused() {
    status=0
    tool amqp-publish --routing-key=nowhere --body=lost 2>"$folder/error" || status=$?
    [ $status != 0 ] || echo "it was not refused" >"$folder/error"
    report refused "\"error\": \"$(tr -d '\n"\\' <"$folder/error")\""
}

channels() {
    skip channels "The tools open one channel on each connection."
}

# One connection publishes all the lines; the queue is there for the last one only.
busy_lines() {
    end=$(($(date +%s) + heartbeats_for))
    while [ "$(date +%s)" -lt $end ]; do
        printf '1\n2\n3\n4\n5\n'
        sleep 0.005
    done
    tool amqp-declare-queue --queue=busy >/dev/null
    echo 'still here'
}

busy() {
    status=0
    busy_lines | tool amqp-publish --heartbeat=$heartbeat --routing-key=busy --line-buffered || status=$?
    alive=false
    [ $status = 0 ] && [ "$(tool amqp-get --queue=busy)" = 'still here' ] && alive=true
    tool amqp-delete-queue --queue=busy >/dev/null
    report busy "\"alive\": $alive"
}

idle() {
    tool amqp-declare-queue --queue=idle >/dev/null
    (sleep $heartbeats_for && tool amqp-publish --routing-key=idle --body='still here') &
    alive=false
    body=$(tool amqp-consume --heartbeat=$heartbeat --queue=idle --count=1 cat) || true
    [ "$body" = 'still here' ] && alive=true
    wait
    tool amqp-delete-queue --queue=idle >/dev/null
    report idle "\"alive\": $alive, \"note\": \"It is a consumer that is idle: a publisher that waits for its input sends no heartbeats.\""
}

$case
