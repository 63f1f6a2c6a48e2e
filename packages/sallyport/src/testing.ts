export * from '@sallyport/testing';
