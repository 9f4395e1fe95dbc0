/* enter PID COMMAND ARGUMENT...: runs a command in the namespaces of process PID, as a child in its pid namespace.
 * Unlike nsenter(1) it keeps the working directory where that exists inside, passes signals on, ends as the command
 * ended, and takes the command with it when it is killed itself. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const int passed_on[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
static const unsigned passed_on_count = sizeof passed_on / sizeof *passed_on;

static void die(const char *what, int status) {
  fprintf(stderr, "enter: %s: %s\n", what, strerror(errno));
  exit(status);
}

/* A terminal sends its signals to the child as well: only those that a process sent are passed on. */
static pid_t child;
static void pass_on(int number, siginfo_t *info, void *context) {
  (void)context;
  if (info->si_code <= 0) kill(child, number);
}

/* Ends this process as the child ended. */
static void end_as(int status) {
  if (WIFEXITED(status)) exit(WEXITSTATUS(status));
  int number = WTERMSIG(status);
  struct rlimit no_core = {0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  signal(number, SIG_DFL);
  sigset_t only;
  sigemptyset(&only);
  sigaddset(&only, number);
  sigprocmask(SIG_UNBLOCK, &only, 0);
  raise(number);
  exit(128 + number);
}

int main(int count, char **arguments) {
  if (count < 3) {
    fprintf(stderr, "usage: enter PID COMMAND ARGUMENT...\n");
    return 64;
  }
  char directory[PATH_MAX];
  if (!getcwd(directory, sizeof directory)) strcpy(directory, "/");

  int box = syscall(SYS_pidfd_open, atoi(arguments[1]), 0);
  if (box < 0) die("the cluster's first process is gone", 125);
  int all = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWCGROUP;
  if (setns(box, all)) die("setns", 125);
  close(box);
  if (chdir(directory) && chdir("/")) die("chdir", 125);

  /* Until the child's id is known and its handlers are in place, signals wait. */
  sigset_t caught, before;
  sigemptyset(&caught);
  for (unsigned i = 0; i < passed_on_count; i++) sigaddset(&caught, passed_on[i]);
  sigprocmask(SIG_BLOCK, &caught, &before);
  child = fork();
  if (child < 0) die("fork", 125);
  if (!child) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigprocmask(SIG_SETMASK, &before, 0);
    execvp(arguments[2], arguments + 2);
    die(arguments[2], errno == ENOENT ? 127 : 126);
  }
  struct sigaction action = {.sa_sigaction = pass_on, .sa_flags = SA_SIGINFO | SA_RESTART};
  for (unsigned i = 0; i < passed_on_count; i++) sigaction(passed_on[i], &action, 0);
  sigprocmask(SIG_SETMASK, &before, 0);

  int status;
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR) die("waitpid", 125);
  end_as(status);
}
