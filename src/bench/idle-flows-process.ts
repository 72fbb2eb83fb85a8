// A client on Y that holds flows open, as a process of its own: ADDRESS PORT FLOWS. Each carries a message and its reply, then
// nothing more. Prints "open" when all are idle, and stays until it is killed.
import { eventLoop } from '../sys/loop.ts'
import { MessageConnection, type MessageOwner } from './message-connection.ts'

const MESSAGE_BYTES = 64
const AT_ONCE = 64 // more would overflow a backlog

const [address = '', port, flows] = process.argv.slice(2)
const server = { address, port: Number(port) }
let begun = 0
let idle = 0

const owner: MessageOwner = {
  onReady: (connection) => connection.send(),
  onReply: () => {
    idle++
    if (begun < Number(flows)) begin()
    else if (idle === Number(flows)) process.stdout.write('open\n')
  },
}

function begin(): void {
  new MessageConnection(eventLoop, owner, server, begun++, MESSAGE_BYTES)
}

process.on('uncaughtException', (error) => {
  process.stderr.write(`${error.message}\n`)
  process.exit(1)
})
while (begun < Math.min(AT_ONCE, Number(flows))) begin()
