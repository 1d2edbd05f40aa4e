//! What a node knows, and what it is told: counters, connections, queues, virtual hosts, users, alarms.

use super::Rabbit;
use super::admin::binary;

/// The node's own counters since it started (`connection_churn_metrics`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Connections opened.
    pub connections_opened: u64,
    /// Connections closed.
    pub connections_closed: u64,
    /// Channels opened.
    pub channels_opened: u64,
    /// Channels closed.
    pub channels_closed: u64,
    /// Queues created.
    pub queues_created: u64,
    /// Queues deleted.
    pub queues_deleted: u64,
}

/// A connection as the node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Name that the client gave, or `HOST:PORT -> HOST:PORT`.
    pub name: String,
    /// User.
    pub user: String,
    /// Virtual host.
    pub vhost: String,
    /// Channels open on it.
    pub channels: u32,
    /// `running`, `blocked`, `flow` …
    pub state: String,
}

/// A queue as the node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Name.
    pub name: String,
    /// Messages ready for delivery.
    pub ready: u64,
    /// Messages delivered and not settled.
    pub unacknowledged: u64,
    /// Consumers.
    pub consumers: u32,
}

impl Rabbit {
    /// The node's counters now.
    pub fn counters(&self) -> Counters {
        let answer = self.eval(
            "[Row] = ets:lookup(connection_churn_metrics, node()), \
             iolist_to_binary([[integer_to_list(N), $\\s] || N <- tl(tuple_to_list(Row))]).",
        );
        let n: Vec<u64> = answer.split_whitespace().map(|w| w.parse().expect("a number")).collect();
        let [
            connections_opened,
            connections_closed,
            channels_opened,
            channels_closed,
            _queues_declared,
            queues_created,
            queues_deleted,
        ] = n[..]
        else {
            panic!("RabbitMQ counts in another way: {answer}");
        };
        Counters {
            connections_opened,
            connections_closed,
            channels_opened,
            channels_closed,
            queues_created,
            queues_deleted,
        }
    }

    /// How many connections that are open now have published something on a channel that is open now.
    /// The node learns it with a delay of 200 ms (its interval for statistics here).
    pub fn publishing_connections(&self, vhost: &str) -> usize {
        let answer = self.eval(&format!(
            "Publishing = [Channel || {{{{Channel, _}}, Published, _, _, _, _}} <- ets:tab2list(channel_exchange_metrics), Published > 0], \
             Created = lists:append([ets:lookup(channel_created, C) || C <- Publishing]), \
             length(lists:usort([proplists:get_value(connection, I) || {{_, I}} <- Created, \
                                 proplists:get_value(vhost, I) =:= {}])).",
            binary(vhost)
        ));
        answer.parse().expect("a number")
    }

    /// The connections to a virtual host.
    pub fn connections(&self, vhost: &str) -> Vec<Connection> {
        let answer = self.eval(&format!(
            "Name = fun(I) -> case lists:keyfind(<<\"connection_name\">>, 1, proplists:get_value(client_properties, I)) of \
                 {{_, _, N}} -> N; _ -> proplists:get_value(name, I) end end, \
             iolist_to_binary([[lists:join($\\t, [Name(I), proplists:get_value(user, I), \
                 integer_to_binary(proplists:get_value(channels, I)), \
                 atom_to_binary(proplists:get_value(state, I))]), $\\n] \
                 || I <- rabbit_networking:connection_info_all([name, user, vhost, channels, state, client_properties]), \
                    proplists:get_value(vhost, I) =:= {}]).",
            binary(vhost)
        ));
        let connection = |line: &str| {
            let [name, user, channels, state] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("RabbitMQ describes a connection in another way: {line:?}");
            };
            let channels = channels.parse().expect("a number");
            Connection {
                name: name.into(),
                user: user.into(),
                vhost: vhost.into(),
                channels,
                state: state.into(),
            }
        };
        answer.lines().map(connection).collect()
    }

    /// The processes of the connections to a virtual host: each has its own, and no two ever have the same.
    pub fn connection_pids(&self, vhost: &str) -> Vec<String> {
        let answer = self.eval(&format!(
            "iolist_to_binary([[pid_to_list(proplists:get_value(pid, I)), $\\n] \
                 || I <- rabbit_networking:connection_info_all([pid, vhost]), \
                    proplists:get_value(vhost, I) =:= {}]).",
            binary(vhost)
        ));
        answer.lines().map(str::to_owned).collect()
    }

    /// Closes all connections to a virtual host as an operator does: they get 320 with the reason.
    pub fn close_connections(&self, vhost: &str, reason: &str) {
        self.each_connection(vhost, &format!("rabbit_networking:close_connection(Pid, {reason:?})"));
    }

    /// Cuts all connections to a virtual host: the socket is closed without a word.
    pub fn cut_connections(&self, vhost: &str) {
        self.each_connection(vhost, "exit(Pid, kill)");
    }

    fn each_connection(&self, vhost: &str, action: &str) {
        self.eval(&format!(
            "[{action} || Pid <- rabbit_networking:connections(), \
              (catch rabbit_networking:connection_info(Pid, [vhost])) =:= [{{vhost, {}}}]], ok.",
            binary(vhost)
        ));
    }

    /// A queue, or `None` when there is none of that name.
    pub fn queue(&self, vhost: &str, name: &str) -> Option<Queue> {
        self.queues(vhost).into_iter().find(|q| q.name == name)
    }

    /// All queues of a virtual host.
    pub fn queues(&self, vhost: &str) -> Vec<Queue> {
        let answer = self.eval(&format!(
            "iolist_to_binary([begin {{resource, _, queue, Name}} = proplists:get_value(name, I), \
                 [Name, [[$\\t, integer_to_list(proplists:get_value(K, I))] \
                     || K <- [messages_ready, messages_unacknowledged, consumers]], $\\n] end \
                 || I <- rabbit_amqqueue:info_all({}, [name, messages_ready, messages_unacknowledged, consumers])]).",
            binary(vhost)
        ));
        let queue = |line: &str| {
            let [name, ready, unacknowledged, consumers] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("RabbitMQ describes a queue in another way: {line:?}");
            };
            let number = |text: &str| text.parse::<u64>().expect("a number");
            let consumers = u32::try_from(number(consumers)).expect("few consumers");
            Queue {
                name: name.into(),
                ready: number(ready),
                unacknowledged: number(unacknowledged),
                consumers,
            }
        };
        answer.lines().map(queue).collect()
    }

    /// Creates a virtual host; `guest` may do everything on it.
    pub fn add_vhost(&self, vhost: &str) {
        self.eval(&format!("rabbit_vhost:add({}, <<\"test\">>).", binary(vhost)));
        self.set_permissions("guest", vhost, [".*", ".*", ".*"]);
    }

    /// Deletes a virtual host: its connections get 320.
    pub fn delete_vhost(&self, vhost: &str) {
        self.eval(&format!("rabbit_vhost:delete({}, <<\"test\">>).", binary(vhost)));
    }

    /// Creates a user without rights.
    pub fn add_user(&self, user: &str, password: &str) {
        let (user, password) = (binary(user), binary(password));
        self.eval(&format!("rabbit_auth_backend_internal:add_user({user}, {password}, <<\"test\">>)."));
    }

    /// Changes a password.
    pub fn change_password(&self, user: &str, password: &str) {
        let (user, password) = (binary(user), binary(password));
        self.eval(&format!(
            "rabbit_auth_backend_internal:change_password({user}, {password}, <<\"test\">>)."
        ));
    }

    /// Deletes a user: the user's connections get 320.
    pub fn delete_user(&self, user: &str) {
        self.eval(&format!("rabbit_auth_backend_internal:delete_user({}, <<\"test\">>).", binary(user)));
    }

    /// Sets the patterns of what a user may configure, write and read on a virtual host.
    pub fn set_permissions(&self, user: &str, vhost: &str, [configure, write, read]: [&str; 3]) {
        self.eval(&format!(
            "rabbit_auth_backend_internal:set_permissions({}, {}, {}, {}, {}, <<\"test\">>).",
            binary(user),
            binary(vhost),
            binary(configure),
            binary(write),
            binary(read)
        ));
    }

    /// Takes away all rights of a user on a virtual host, so that it is not opened to the user any more.
    pub fn clear_permissions(&self, user: &str, vhost: &str) {
        let (user, vhost) = (binary(user), binary(vhost));
        self.eval(&format!("rabbit_auth_backend_internal:clear_permissions({user}, {vhost}, <<\"test\">>)."));
    }

    /// Sets how many channels a user may have, on all connections together.
    pub fn limit_channels(&self, user: &str, channels: u32) {
        let answer = self.eval(&format!(
            "rabbit_auth_backend_internal:set_user_limits({}, #{{<<\"max-channels\">> => {channels}}}, <<\"test\">>).",
            binary(user)
        ));
        assert_eq!(answer, "ok", "RabbitMQ sets the limit in another way");
    }

    /// Raises the memory alarm: publishing connections are read no more.
    pub fn raise_memory_alarm(&self) {
        // Setting is a notice; asking afterwards makes sure that it has reached every connection.
        self.eval(
            "rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []}), rabbit_alarm:get_alarms().",
        );
    }

    /// Ends what [`Rabbit::raise_memory_alarm`] began.
    pub fn clear_memory_alarm(&self) {
        self.eval("rabbit_alarm:clear_alarm({resource_limit, memory, node()}), rabbit_alarm:get_alarms().");
    }
}
