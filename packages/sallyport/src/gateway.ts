export * from '@sallyport/gateway';
