%% Evaluates Erlang expressions inside the node and answers with what they give: the node's own counters in well below a
%% millisecond, where rabbitmqctl takes seconds to start. Loopback only, and a request must begin with the cookie.
%% Run by file:eval when the node starts; PORT and COOKIE are put in by the harness.
{ok, Listener} = gen_tcp:listen(PORT, [binary, {packet, 4}, {active, false}, {ip, {127, 0, 0, 1}},
                                       {reuseaddr, true}, {backlog, 64}]).

Evaluate = fun(Text) ->
    {ok, Tokens, _} = erl_scan:string(binary_to_list(Text)),
    {ok, Expressions} = erl_parse:parse_exprs(Tokens),
    {value, Value, _} = erl_eval:exprs(Expressions, []),
    case is_binary(Value) of
        true -> Value;
        false -> unicode:characters_to_binary(io_lib:format("~0tp", [Value]))
    end
end.

Serve = fun Serve(Socket) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, <<"COOKIE", Text/binary>>} ->
            Answer = try [$+, Evaluate(Text)]
                     catch Class:Reason:Stack ->
                         [$-, io_lib:format("~0tp", [{Class, Reason, Stack}])]
                     end,
            ok = gen_tcp:send(Socket, Answer),
            Serve(Socket);
        _ ->
            gen_tcp:close(Socket)
    end
end.

Accept = fun Accept() ->
    {ok, Socket} = gen_tcp:accept(Listener),
    Server = spawn(fun() -> receive yours -> Serve(Socket) end end),
    ok = gen_tcp:controlling_process(Socket, Server),
    Server ! yours,
    Accept()
end.

Accept().
