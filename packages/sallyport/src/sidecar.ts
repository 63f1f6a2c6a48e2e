export * from '@sallyport/sidecar';
