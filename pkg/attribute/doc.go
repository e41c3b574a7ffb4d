// Package attribute is stage 3: it knows who acts. It turns the process events
// of the kernel side into a table of processes and sessions, and answers for
// each file event which person, session, origin and chain of programs is behind
// it.
//
// It owns the Table: one program per (process, exec), linked to the program it
// came from. Links are made when the kernel reports a fork or an exec and never
// change afterwards, so that an ancestor stays what it was when the child was
// made, also after it ended, executed something else or gave its pid to another
// process.
//
// It promises
//
//   - that two processes are never mixed up: every look-up is by pid, start time
//     and number of execs, and /proc is believed only about a process with the
//     same start time and the same executable inode;
//   - that what it does not know is "unknown" and never a guess;
//   - that memory is bounded by Options.MaxProcesses, and that what is dropped
//     for it is counted (Stats);
//   - that Observe does no system call but to name a control group at its first
//     program, and to look into /proc for a program whose exec was not reported.
//
// It does not guarantee that a process is known whose events were lost: such an
// answer keeps what the file event itself carries (ids, login, session, pid) and
// says "unknown" or "proc_scan" for the rest.
//
// # Records
//
// Observe and Reap return records: the beginning and end of each login and of each
// service, changes of credentials of processes in logins, who reaches into another
// process, and the executions and ends of the processes that Options.Processes
// names. A program that goes to and fro between credentials is told of each only
// once. Supplementary groups, and capabilities that are not effective, are not
// looked at. Where only calls are told (tier tracepoint), what an execution leaves
// of the capabilities is "unknown".
//
// Actor.Peers are the other ends of the connections that a service holds a moment
// after it made a change, on ports where it listens: candidates, and no fact. A
// connection that is closed by then is not among them.
//
// # Sessions
//
// A login's session is called "login-N", N being the number that the kernel gave
// the login. Work outside any login belongs to a service session called
// "svc-PID-START" after the oldest known ancestor below pid 1 and kthreadd (for
// containers: the oldest one inside the container). That name is stable as long
// as that ancestor is known: while the daemon runs, and after its restart if the
// ancestor still lives. All kernel threads share the session "kernel".
//
// # Chains
//
// Process.Ancestors begins with the parent and ends with the first process of
// the session. A process that executed several programs one after the other
// (env, nohup, doas) appears once for each, with one pid and several exec ids; the
// copy of itself that a process is between its fork and its exec is left out. A last
// ancestor "unknown" without a pid says that it is not known what the chain began with.
//
// # Callers
//
// pkg/pipeline calls Observe and Who from one goroutine, pkg/daemon calls Reap
// there after losses and every few seconds. Stats and Sessions may be called
// from anywhere: Table.mu guards the list of sessions, counters are atomic.
package attribute
