import { type EventType, runService, type SallyportEvent, type Service, silentLogger } from 'sallyport';

/** Folder of identities and registry that the demo hands to the processes it starts. */
export const folder = process.argv[2] ?? '.';

/** The demo shows the events itself. */
export const logger = silentLogger;

/** Runs a service of the demo and reports its events to the parent. */
export async function runAndReport(service: Service): Promise<void> {
  service.on('*', (event: SallyportEvent<EventType>) => process.send?.({ event, endpoints: service.endpoints }));
  await runService(service);
  process.disconnect?.();
}
