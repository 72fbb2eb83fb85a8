import { Command, CommanderError } from 'commander'
import { LimpidError } from '../errors.ts'
import { colourOf } from './colour.ts'
import type { CommandModule, Invocation } from './invocation.ts'
import { packageVersion } from './package-version.ts'

interface Entry {
  readonly name: string
  readonly summary: string
  /** Only the command that runs is loaded: reading all of them would double the time to the first output. */
  load(): Promise<CommandModule>
}

const COMMANDS: readonly Entry[] = [
  {
    name: 'run',
    summary: 'intercept and relay until SIGTERM: from flags, or from limpid.yaml',
    load: () => import('./run.ts'),
  },
  { name: 'relay', summary: "forward one port, with tcprdr's switches", load: () => import('./relay.ts') },
  {
    name: 'plan',
    summary: 'print the kernel rules and who will know whom; touches nothing',
    load: () => import('./plan.ts'),
  },
  { name: 'rules', summary: 'show, install, remove or verify the kernel rules', load: () => import('./rules.ts') },
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
  quietOnClosedPipe()
  const invocation: Invocation = { exitCode: 0, colour: colourOf(process.stdout) }
  try {
    const program = await buildProgram(argv, invocation)
    await program.parseAsync(argv as string[], { from: 'user' })
    return invocation.exitCode
  } catch (error) {
    return report(error, argv)
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

/** `limpid plan | head` is no error: what reads our data had enough. A stderr that is gone has nobody to tell. */
function quietOnClosedPipe(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE' && stream === process.stdout && process.exitCode === undefined) process.exitCode = 0
    })
  }
}

function report(error: unknown, argv: readonly string[]): number {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return 0
    if (error.code === 'commander.help') {
      process.stderr.write('limpid: which command? See `limpid --help`\n')
      return EXIT_USAGE
    }
    const command = COMMANDS.find(({ name }) => name === argv[0])
    const help = command === undefined ? 'limpid --help' : `limpid ${command.name} --help`
    const what = error.message.replace(/^error: /, '').replaceAll(/\s*\n\s*/g, ' ')
    return report(new LimpidError('LIMPID_USAGE', what, { cure: `see \`${help}\`` }), argv)
  }
  const debug = process.env.LIMPID_DEBUG === '1'
  if (error instanceof LimpidError) {
    process.stderr.write(`${debug ? `${error.toString()}\n${error.stack}` : error.toString()}\n`)
    return error.exitCode
  }
  const line = error instanceof Error ? `${error.name}: ${error.message}` : String(error)
  const advice = debug
    ? `\n${error instanceof Error ? error.stack : ''}`
    : '; this is a defect: LIMPID_DEBUG=1 shows where'
  process.stderr.write(`limpid: unexpected ${line.replaceAll(/\s*\n\s*/g, ' ')}${advice}\n`)
  return 1
}
