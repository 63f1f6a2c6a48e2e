/** Asks again until the assertion holds; at the deadline its last failure is the failure of the test. */
export async function eventually(assertion: () => unknown, deadlineMs = 20_000): Promise<void> {
  const deadlineAt = Date.now() + deadlineMs;
  for (;;) {
    try {
      await assertion();
      return;
    } catch (error) {
      if (Date.now() > deadlineAt) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
