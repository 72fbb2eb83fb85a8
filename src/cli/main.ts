import { Command, CommanderError } from 'commander'
import { LimpidError } from '../errors.ts'
import { colourOf } from './colour.ts'
import type { CommandModule, Invocation } from './invocation.ts'
import { Output } from './output.ts'
import { packageVersion } from './package-version.ts'
import { note } from './print.ts'

interface Entry {
  readonly name: string
  readonly summary: string
  /** Its own commands, in words. */
  readonly verbs?: string
  /** It is there for what it does: that its output cannot be written is no reason to fail. */
  readonly serves?: true
  /** Only the command that runs is loaded: reading all of them would double the time to the first output. */
  load(): Promise<CommandModule>
}

const COMMANDS: readonly Entry[] = [
  {
    name: 'run',
    summary: 'intercept and relay until SIGTERM: from flags, or from limpid.yaml',
    serves: true,
    load: () => import('./run.ts'),
  },
  {
    name: 'relay',
    summary: "forward one port, with tcprdr's switches",
    serves: true,
    load: () => import('./relay.ts'),
  },
  {
    name: 'plan',
    summary: 'print the kernel rules and who will know whom; touches nothing',
    load: () => import('./plan.ts'),
  },
  {
    name: 'rules',
    summary: 'show, install, remove or diff the kernel rules',
    verbs: 'show, install, remove or diff',
    load: () => import('./rules.ts'),
  },
  {
    name: 'doctor',
    summary: 'find out why packets do not arrive: looks, then pushes packets through the rules',
    load: () => import('./doctor.ts'),
  },
  {
    name: 'trace',
    summary: 'tell hop by hop what becomes of a flow; --live compares with a real packet',
    load: () => import('./trace.ts'),
  },
  {
    name: 'explain',
    summary: 'name the rule of the policy that decides a flow, and why each one before it does not',
    load: () => import('./explain.ts'),
  },
  {
    name: 'policy',
    summary: 'test the policy of a file with a table of flows, or push one to the bucket that gateways watch',
    verbs: 'test or push',
    load: () => import('./policy.ts'),
  },
  { name: 'stats', summary: 'print the counters of the limpid run that runs here', load: () => import('./stats.ts') },
  {
    name: 'bypass',
    summary: 'show, add or remove destinations that the kernel forwards by itself, while limpid run runs',
    verbs: 'show, add or remove',
    load: () => import('./bypass.ts'),
  },
  { name: 'reload', summary: 'have a running limpid run read its policy again', load: () => import('./reload.ts') },
  { name: 'check', summary: 'check a configuration file', load: () => import('./check.ts') },
  {
    name: 'lab',
    summary: 'show the four scenarios with real packets, in namespaces of its own',
    load: () => import('./lab.ts'),
  },
  {
    name: 'version',
    summary: 'print the versions of Limpid, Node.js and the kernel',
    load: () => import('./version.ts'),
  },
]

const EXIT_USAGE = 2

/** Runs one command line and returns the exit code. Never throws: errors are one line on stderr. */
export async function main(argv: readonly string[]): Promise<number> {
  process.on('SIGUSR1', () => {}) // without a handler Node opens its debugger
  const output = new Output(COMMANDS.some(({ name, serves }) => name === argv[0] && serves))
  const invocation: Invocation = { exitCode: 0, colour: colourOf(process.stdout) }
  try {
    const program = await buildProgram(argv, invocation)
    await program.parseAsync(argv as string[], { from: 'user' })
    return await output.exitCode(invocation.exitCode)
  } catch (error) {
    return await output.exitCode(report(error, argv))
  }
}

async function buildProgram(argv: readonly string[], invocation: Invocation): Promise<Command> {
  const program = new Command('limpid')
    .description('A programmable transparent proxy for Linux.')
    .exitOverride()
    .configureOutput({ writeErr: () => {} }) // report() prints usage errors, on one line
    .version(packageVersion(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'show help')
    .helpCommand('help [command]', 'show help for a command')
    .showSuggestionAfterError()
  const words = argv.filter((word) => !word.startsWith('-'))
  const wanted = words[0] === 'help' ? words[1] : words[0]
  for (const entry of COMMANDS) {
    const command = program.command(entry.name).description(entry.summary)
    if (entry.name === wanted) (await entry.load()).configure(command, invocation)
  }
  return program
}

function report(error: unknown, argv: readonly string[]): number {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return 0
    const command = COMMANDS.find(({ name }) => name === argv[0])
    const help = command === undefined ? 'limpid --help' : `limpid ${command.name} --help`
    if (error.code === 'commander.help') {
      const asked =
        command?.verbs === undefined ? 'limpid: which command?' : `limpid ${command.name}: which of ${command.verbs}?`
      note(`${asked} See \`${help}\``)
      return EXIT_USAGE
    }
    const what = error.message
      .replace(/^error: /, '')
      .replace(/\. Expected (\d+) arguments? but got (\d+)\.?.*$/s, ': expected $1, found $2')
      .replaceAll(/\s*\n\s*/g, ' ')
    return report(new LimpidError('LIMPID_USAGE', what, { cure: `see \`${help}\`` }), argv)
  }
  const debug = process.env.LIMPID_DEBUG === '1'
  if (error instanceof LimpidError) {
    note(error.toString())
    if (debug) process.stderr.write(`${error.stack}\n`)
    return error.exitCode
  }
  const line = error instanceof Error ? `${error.name}: ${error.message}` : String(error)
  note(
    `limpid: unexpected ${line.replaceAll(/\s*\n\s*/g, ' ')}${debug ? '' : '; this is a defect: LIMPID_DEBUG=1 shows where'}`,
  )
  if (debug && error instanceof Error) process.stderr.write(`${error.stack}\n`)
  return 1
}
