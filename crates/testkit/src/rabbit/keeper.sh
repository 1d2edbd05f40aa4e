# Keeps one RabbitMQ node and its port mapper (epmd), for as long as standard input is open. The test process holds
# the other end, so nothing is left behind however that ends.
#
#   keeper.sh FOLDER EPMD_PORT SERVER      commands on standard input: start, kill, freeze, thaw; each answered "ok"
folder=$1
server=$3
trap '' INT TERM HUP PIPE

epmd -port "$2" -address 127.0.0.1 </dev/null >"$folder/epmd.log" 2>&1 &
epmd=$!
node=

while read -r command; do
    case $command in
    start)
        "$server" </dev/null >>"$folder/stdout.log" 2>>"$folder/stderr.log" &
        node=$!
        ;;
    kill)
        kill -9 $node
        wait $node 2>/dev/null
        node=
        ;;
    freeze) kill -STOP $node ;;
    thaw) kill -CONT $node ;;
    esac
    echo ok
done

kill -9 $node $epmd 2>/dev/null
wait
[ -n "$WARREN_TEST_KEEP" ] || rm -rf "$folder"
