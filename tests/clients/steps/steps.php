<?php
// What the PHP clients of tests/clients/README.md share: arguments, numbers, and the lines that they report.

const MESSAGES = 1000;
const CHANNELS = 20;
// Seconds.
const HEARTBEAT = 2;
const HEARTBEATS_FOR = 10;
// A busy publisher sends so many messages and pauses for so many microseconds.
const BURST = 5;
const PAUSE = 5000;
const PROOF = 'still here';
const LARGE_SIZE = 10 * 1024 * 1024;
ini_set('memory_limit', '512M');

[, $case, $host, $port, $vhost, $password] = $_SERVER['argv'];
define('HOST', $host);
define('PORT', (int) $port);
define('VHOST', $vhost);
define('PASSWORD', $password);

function report(string $step, array $fields): void
{
    echo json_encode(['step' => $step] + $fields), "\n";
}

function large(): string
{
    $pattern = implode('', array_map('chr', range(0, 250)));
    return substr(str_repeat($pattern, intdiv(LARGE_SIZE, 251) + 1), 0, LARGE_SIZE);
}

function report_large(string $body): void
{
    report('large', ['size' => strlen($body), 'sha256' => hash('sha256', $body)]);
}

/** `$received` holds the body that came on each channel. */
function report_channels(array $received): void
{
    ksort($received);
    $wanted = array_map(fn($n) => "to $n", range(0, CHANNELS - 1));
    report('channels', ['open' => CHANNELS, 'received' => count($received), 'right' => $received === $wanted]);
}

/** Counts the seconds down for which a case with heartbeats goes on. */
function seconds_left(): Generator
{
    $end = microtime(true) + HEARTBEATS_FOR;
    while (($left = $end - microtime(true)) > 0) {
        yield $left;
    }
}

/** Runs one of the functions of the client: they are named like the cases. */
function run_case(): void
{
    global $case;
    in_array($case, ['job', 'refused', 'channels', 'busy', 'idle'], true) || exit("no case $case\n");
    $case();
}
